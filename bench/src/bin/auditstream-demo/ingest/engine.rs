//! ClickHouse's own Kafka engine: a table that reads the topic, and a view that takes its rows into the events table.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Bench;
use super::sql::{self, Origin, QUEUE, VIEW};
use super::topic::Topic;
use crate::server::Server;

/// The engine looks for its view twice a second; asking much more often costs what is measured.
const LOOK: Duration = Duration::from_millis(10);

/// The engine at work. Dropped without [`Engine::stop`] it goes on until the next one starts, or the stack ends.
pub(super) struct Engine {
    server: Server,
}

impl Engine {
    pub(super) fn start(bench: &Bench<'_>, topic: &Topic, group: &str) -> Result<Self> {
        let engine = Self { server: bench.server.clone() };
        engine.remove()?;
        let state = bench.target.state();
        let origin = Origin {
            bootstrap: &state.kafka_bootstrap,
            topic: &topic.name,
            group,
            registry: state.registry_url.as_deref().context("the stack has no schema registry")?,
        };
        let database = engine.server.database();
        engine.server.text(&sql::queue(database, origin, bench.engine.get()))?;
        engine.server.text(&sql::view(database))?;
        Ok(engine)
    }

    /// Whether one of its consumers has a partition.
    pub(super) fn is_member(&self) -> Result<bool> {
        thread::sleep(LOOK);
        let sql = format!(
            "SELECT countIf(notEmpty(assignments.partition_id)) FROM system.kafka_consumers WHERE database = '{}' AND table = '{QUEUE}'",
            self.server.database()
        );
        Ok(self.server.number(&sql)? > 0)
    }

    /// What the engine says of its last failures.
    pub(super) fn troubles(&self) -> String {
        let sql = format!(
            "SELECT arrayStringConcat(arrayDistinct(exceptions.text), '; ') FROM system.kafka_consumers WHERE database = '{}' AND table = '{QUEUE}'",
            self.server.database()
        );
        self.server.text(&sql).unwrap_or_else(|error| format!("{error:#}"))
    }

    pub(super) fn stop(self) -> Result<()> {
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        let database = self.server.database();
        for table in [VIEW, QUEUE] {
            self.server.text(&format!("DROP TABLE IF EXISTS {database}.{table} SYNC"))?;
        }
        Ok(())
    }
}
