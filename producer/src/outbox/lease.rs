//! Which shards this relay works on: leases in a table beside the outbox, the same on all three databases.
//!
//! ```text
//! name       owner     expires_at
//! shard-00   relay-a   now + lease     64 of these, there from the start
//! relay-a    relay-a   now + lease     one for each living relay: so many share the shards
//! ```
//!
//! A relay renews its leases every quarter of their time, takes what is free or has expired up to its share, and gives back what is
//! above it, which it does only between two rounds, when nothing of it is under way. All times are the database's.

use std::collections::BTreeSet;

use super::SHARDS;
use super::database::{Arg, Database, DatabaseError};
use super::ddl::Table;
use super::faults::{Point, crash_point};

/// A dead relay's own line is removed after so many leases.
const FORGET_AFTER: i64 = 20;

#[derive(Debug)]
pub(crate) struct Leases {
    database: Database,
    table: String,
    /// Without quotes, so that it may stand in a name.
    owner: String,
    lease_ms: i64,
    mine: BTreeSet<u32>,
}

impl Leases {
    pub(crate) fn new(database: Database, table: &Table, relay_id: &str, lease_ms: i64) -> Self {
        Self { database, table: table.leases(), owner: format!("relay-{relay_id}"), lease_ms, mine: BTreeSet::new() }
    }

    /// The shards of the last [`Self::balance`].
    pub(crate) fn mine(&self) -> &BTreeSet<u32> {
        &self.mine
    }

    /// Says that this relay lives, and keeps what it has.
    pub(crate) async fn renew(&self) -> Result<(), DatabaseError> {
        let (table, now, owner) = (&self.table, self.database.dialect.now(), Arg::Text(&self.owner));
        let what = "can't renew the leases";
        let sql = format!("UPDATE {table} SET expires_at = {now} + ? WHERE owner = ?");
        let known = self.database.execute(what, &sql, &[Arg::Int(self.lease_ms), owner.clone()]).await?;
        if known == 0 {
            let sql = format!("INSERT INTO {table} (name, owner, expires_at) VALUES (?, ?, {now} + ?)");
            self.database.execute(what, &sql, &[owner.clone(), owner, Arg::Int(self.lease_ms)]).await?;
        }
        crash_point(Point::LeasesRenewed);
        Ok(())
    }

    /// Renews, and takes or gives back shards until it has its share. Only between two rounds.
    pub(crate) async fn balance(&mut self) -> Result<(), DatabaseError> {
        self.renew().await?;
        let (table, now) = (&self.table, self.database.dialect.now());
        let what = "can't share out the shards";
        let owner = Arg::Text(&self.owner);
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE name LIKE 'relay-%' AND expires_at > {now}");
        let living = self.database.fetch(what, &sql, &[], |row| row.int(0), |_| true).await?;
        let share =
            SHARDS.div_ceil(living.first().map_or(1, |count| (*count).clamp(1, i64::from(SHARDS)) as u32)) as usize;
        let mut mine = self.owned().await?;
        if mine.len() > share {
            let surplus: Vec<u32> = mine.iter().skip(share).copied().collect();
            let sql = format!("UPDATE {table} SET owner = '', expires_at = 0 WHERE owner = ? AND {}", among(&surplus));
            self.database.execute(what, &sql, std::slice::from_ref(&owner)).await?;
            mine = self.owned().await?;
        } else if mine.len() < share {
            let sql =
                format!("SELECT name FROM {table} WHERE name LIKE 'shard-%' AND expires_at <= {now} ORDER BY name");
            let free = self.database.fetch(what, &sql, &[], |row| row.text(0), |_| false).await?;
            let wanted: Vec<u32> = free.iter().filter_map(|name| number(name)).take(share - mine.len()).collect();
            if !wanted.is_empty() {
                // Of two relays that want one shard, the second one finds it taken when its turn at the row comes.
                let sql = format!(
                    "UPDATE {table} SET owner = ?, expires_at = {now} + ? WHERE expires_at <= {now} AND {}",
                    among(&wanted)
                );
                self.database.execute(what, &sql, &[owner, Arg::Int(self.lease_ms)]).await?;
                crash_point(Point::ShardsTaken);
                mine = self.owned().await?;
            }
        }
        if mine != self.mine {
            tracing::info!(shards = mine.len(), of = SHARDS, "this relay's shards");
            self.mine = mine;
        }
        Ok(())
    }

    async fn owned(&self) -> Result<BTreeSet<u32>, DatabaseError> {
        let (table, now) = (&self.table, self.database.dialect.now());
        let sql = format!("SELECT name FROM {table} WHERE owner = ? AND name LIKE 'shard-%' AND expires_at > {now}");
        let names = self
            .database
            .fetch("can't read the leases", &sql, &[Arg::Text(&self.owner)], |row| row.text(0), |_| false)
            .await?;
        Ok(names.iter().filter_map(|name| number(name)).collect())
    }

    /// Gives everything back, so that others need not wait for the end of the leases; and forgets relays that died long ago.
    pub(crate) async fn release(&mut self) -> Result<(), DatabaseError> {
        let (table, now) = (&self.table, self.database.dialect.now());
        let what = "can't give the leases back";
        let owner = [Arg::Text(&self.owner)];
        let sql = format!("UPDATE {table} SET owner = '', expires_at = 0 WHERE owner = ? AND name LIKE 'shard-%'");
        self.database.execute(what, &sql, &owner).await?;
        self.mine.clear();
        let sql = format!("DELETE FROM {table} WHERE name = ?");
        self.database.execute(what, &sql, &owner).await?;
        let sql = format!("DELETE FROM {table} WHERE name LIKE 'relay-%' AND expires_at < {now} - ?");
        self.database.execute(what, &sql, &[Arg::Int(self.lease_ms * FORGET_AFTER)]).await.map(|_| ())
    }
}

fn number(name: &str) -> Option<u32> {
    name.strip_prefix("shard-")?.parse().ok()
}

/// A condition on the name. The names are ours, so they stand in the text.
fn among(shards: &[u32]) -> String {
    let names: Vec<String> = shards.iter().map(|shard| format!("'shard-{shard:02}'")).collect();
    format!("name IN ({})", names.join(", "))
}
