//! What indexes cost the inserts: the same rows into the same table with and without them, in turns.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::seed::{INSERT, Plan};
use crate::server::Server;

/// Rows of each insert.
const BATCH: u64 = 100_000;
/// Inserts of a round.
const BATCHES: u64 = 5;
/// Rounds; the least of them counts, since whatever else the machine does only adds.
const ROUNDS: usize = 4;

/// Cost of a million rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) cpu_s: f64,
    pub(super) wall_s: f64,
}

/// With all indexes and without any, and what merging costs beside.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Inserts {
    pub(super) plain: Cost,
    pub(super) indexed: Cost,
    pub(super) merge_plain: Cost,
    pub(super) merge_indexed: Cost,
}

impl Inserts {
    /// How much dearer inserts are with indexes, in percent of CPU time.
    pub(super) fn indexes_percent(&self) -> f64 {
        100.0 * (self.indexed.cpu_s / self.plain.cpu_s - 1.0)
    }
}

/// Measures on tables of its own, which it removes.
pub(super) fn measure(server: &Server, plan: Plan) -> Result<Inserts> {
    let ddl = server.text("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'events' FORMAT TSVRaw")?;
    let (columns, engine) = ddl.split_once(") ENGINE = ").context("a table has an engine")?;
    let body = columns.split_once('(').context("a table has columns")?.1;
    let without = without_indexes(body);
    for (table, body) in [("bench_plain", without.as_str()), ("bench_indexed", body)] {
        server.text(&format!("DROP TABLE IF EXISTS {table} SYNC"))?;
        server.text(&format!("CREATE TABLE {table} ({body}) ENGINE = {engine}"))?;
        server.text(&format!("SYSTEM STOP MERGES {table}"))?;
    }
    server.text("DROP TABLE IF EXISTS bench_rows SYNC")?;
    let rows = plan.events(plan.total / 2, BATCH * BATCHES);
    server.ask(&format!("CREATE TABLE bench_rows ENGINE = MergeTree ORDER BY tuple() AS {rows}"), "")?;
    let mut best = [Cost { cpu_s: f64::INFINITY, wall_s: f64::INFINITY }; 2];
    let mut merge = best;
    for _ in 0..ROUNDS {
        for (index, table) in ["bench_plain", "bench_indexed"].into_iter().enumerate() {
            let cost = cost(server, || {
                for batch in 0..BATCHES {
                    let insert =
                        format!("INSERT INTO {table} SELECT * FROM bench_rows LIMIT {}, {BATCH}", batch * BATCH);
                    server.ask(&insert, &format!("{INSERT}&insert_deduplicate=0"))?;
                }
                Ok(())
            })?;
            best[index] = least(best[index], cost);
        }
    }
    for (index, table) in ["bench_plain", "bench_indexed"].into_iter().enumerate() {
        server.text(&format!("SYSTEM START MERGES {table}"))?;
        let rows = ROUNDS as f64;
        let cost = cost(server, || server.text(&format!("OPTIMIZE TABLE {table} FINAL")).map(drop))?;
        merge[index] = Cost { cpu_s: cost.cpu_s / rows, wall_s: cost.wall_s / rows };
    }
    for table in ["bench_plain", "bench_indexed", "bench_rows"] {
        server.text(&format!("DROP TABLE {table} SYNC"))?;
    }
    Ok(Inserts { plain: best[0], indexed: best[1], merge_plain: merge[0], merge_indexed: merge[1] })
}

fn least(one: Cost, other: Cost) -> Cost {
    if other.cpu_s < one.cpu_s { other } else { one }
}

/// Of `BATCH * BATCHES` rows, for a million.
fn cost(server: &Server, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (begun, cpu) = (Instant::now(), server.cpu()?);
    work()?;
    let millions = (BATCH * BATCHES) as f64 / 1e6;
    let cpu_s = server.cpu()?.saturating_sub(cpu).as_secs_f64() / millions;
    Ok(Cost { cpu_s, wall_s: begun.elapsed().as_secs_f64() / millions })
}

/// The columns of a CREATE TABLE as ClickHouse prints it, on one line, without INDEX and PROJECTION, which stand behind them.
fn without_indexes(body: &str) -> String {
    let end = [", INDEX ", ", PROJECTION "].iter().filter_map(|word| body.find(word)).min();
    end.map_or(body, |end| &body[..end]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_go_and_columns_stay() {
        let body = "`a` String COMMENT 'x', `b` Int64, INDEX i a TYPE minmax GRANULARITY 1, PROJECTION p (SELECT a ORDER BY a)";
        assert_eq!(without_indexes(body), "`a` String COMMENT 'x', `b` Int64");
        assert_eq!(without_indexes("`a` String"), "`a` String");
    }
}
