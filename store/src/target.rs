//! Where statements go: one server, or every server of a cluster.

/// A database, and the cluster whose servers all get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The database; its name needs no quotes.
    pub database: &'a str,
    /// The cluster's name as ClickHouse's configuration has it; `None` for a server on its own.
    pub cluster: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// One server.
    #[must_use]
    pub fn server(database: &'a str) -> Self {
        Self { database, cluster: None }
    }

    /// Every server of a cluster.
    #[must_use]
    pub fn cluster(database: &'a str, cluster: &'a str) -> Self {
        Self { database, cluster: Some(cluster) }
    }

    /// ` ON CLUSTER 'NAME'`, or nothing.
    pub(crate) fn on_cluster(&self) -> String {
        self.cluster.map(|name| format!(" ON CLUSTER {}", crate::client::quoted(name))).unwrap_or_default()
    }

    /// The tables that hold or show the rows of `table`: on a cluster each server's own one too.
    pub(crate) fn tables(&self, table: &str) -> Vec<String> {
        let facade = format!("{}.{table}", self.database);
        if self.cluster.is_some() { vec![facade.clone(), format!("{facade}_local")] } else { vec![facade] }
    }
}
