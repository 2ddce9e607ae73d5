//! How fast `auditstream relay` empties an outbox in PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::table::thousands;
use auditstream_producer::outbox::{Outbox, Table};
use auditstream_stack::DatabaseServer;
use sqlx::PgPool;

use super::{Bench, Figure, Report, Unit, Worker};
use crate::setup;

/// Rows that are recorded by the library; the others are copies of these under ids of their own.
const RECORDED: u64 = 1_000;
/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(120);
const COLUMNS: &str =
    "aggregatetype, aggregateid, type, payload, ce_source, ce_time, tenant_id, shard, created_at, available_at";

pub(super) async fn from_postgres(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    bench.screen.say(&format!(
        "\nAn outbox of {} rows in PostgreSQL, emptied by `auditstream relay`",
        thousands(bench.args.rows)
    ));
    let server = DatabaseServer::postgres()?;
    let program = bench.args.common.program()?;
    setup::auditstream_with(
        bench.screen,
        &bench.target,
        &program,
        &["outbox", "migrate"],
        &[("AUDITSTREAM_OUTBOX__URL", server.url())],
    )
    .await?;
    let pool = PgPool::connect(server.url()).await.context("PostgreSQL can't be reached")?;
    let outbox = Outbox::default();
    let mut tx = pool.begin().await?;
    for number in 0..RECORDED {
        outbox.record_in_tx(&mut tx, bench.events.at(number)).await?;
    }
    tx.commit().await?;
    let table = &outbox.table;
    sqlx::raw_sql(&format!("CREATE TABLE rows_to_copy AS SELECT * FROM {table}; DELETE FROM {table}"))
        .execute(&pool)
        .await?;
    let mut runs = Vec::new();
    for number in 1..=bench.args.runs {
        fill(&pool, table, bench.args.rows).await?;
        let relay = Worker::relay(&program, &bench.target, &format!("relay-{number}"), server.url())?;
        let rate = emptied(&relay, bench.args.rows).await?;
        let cpu = relay.usage()?.cpu.as_secs_f64() * 1e6 / bench.args.rows as f64;
        relay.stop()?;
        bench.screen.say(&format!(
            "  run {number}: {} rows a second; {cpu:.2} CPU-s of the relay per million",
            thousands(rate as u64)
        ));
        runs.push(rate);
    }
    pool.close().await;
    report.add(Figure::at_least("relay_rows_per_s", Unit::Whole, 20_000.0, runs));
    Ok(())
}

async fn fill(pool: &PgPool, table: &Table, rows: u64) -> Result<()> {
    let copies = rows.div_ceil(RECORDED);
    let sql = format!(
        "INSERT INTO {table} (id, {COLUMNS}) SELECT gen_random_uuid(), {COLUMNS} FROM rows_to_copy, generate_series(1, {copies}) LIMIT {rows}"
    );
    sqlx::query(&sql).execute(pool).await?;
    sqlx::query(&format!("ANALYZE {table}")).execute(pool).await?;
    Ok(())
}

/// Rows a second, from the first acknowledged ones to the last.
async fn emptied(relay: &Worker, rows: u64) -> Result<f64> {
    let begun = Instant::now();
    let mut first = None;
    loop {
        // It serves its metrics a moment after its start.
        let sent = relay.metric("auditstream_relay_rows_sent_total").unwrap_or(0.0);
        let now = Instant::now();
        match first {
            None if sent > 0.0 => first = Some((now, sent)),
            Some((since, before)) if sent >= rows as f64 => {
                return Ok((rows as f64 - before) / (now - since).as_secs_f64());
            }
            _ => {}
        }
        if begun.elapsed() > LIMIT {
            bail!("the relay has sent {sent} of {rows} rows in {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
