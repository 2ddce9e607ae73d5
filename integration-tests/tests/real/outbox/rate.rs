//! How fast a relay empties an outbox in PostgreSQL. A figure, so it runs only when asked for (`-- --ignored outbox::rate`).

use std::time::{Duration, Instant};

use auditstream_integration_tests::{Fixture, Options, wait_until};

use super::database::{Kind, Outboxed, Pool, in_tx};
use super::{event_of, relay};

const ROWS: i64 = 200_000;
/// What the relay must reach, rows a second.
const AT_LEAST: f64 = 20_000.0;

#[test]
#[ignore = "measures"]
fn postgres_rows_a_second() {
    let fixture = Fixture::new(Options::heavy("outbox-rate"));
    let outboxed = Outboxed::new(&fixture, Kind::Postgres);
    let Outboxed { outbox, pool, runtime, table, .. } = &outboxed;
    runtime.block_on(async {
        in_tx!(pool, tx => {
            for number in 0..100 {
                outbox.record_in_tx(&mut tx, event_of(&fixture, &number.to_string(), number)).await.unwrap();
            }
            tx.commit().await.unwrap();
        });
        let Pool::Postgres(pool) = pool else { unreachable!("asked for PostgreSQL") };
        let columns = "aggregatetype, aggregateid, type, payload, ce_source, ce_time, tenant_id, shard, created_at, available_at";
        let copies = ROWS / 100 - 1;
        let sql = format!(
            "INSERT INTO {table} (id, {columns}) SELECT gen_random_uuid(), {columns} FROM {table}, generate_series(1, {copies})"
        );
        sqlx::query(&sql).execute(pool).await.unwrap();
        sqlx::query(&format!("ANALYZE {table}")).execute(pool).await.unwrap();
    });
    let relay = relay(&fixture, &outboxed);
    let sent = || relay.metric("auditstream_relay_rows_sent_total").unwrap_or(0.0);
    wait_until("the first rows", Duration::from_secs(20), || if sent() > 0.0 { Ok(()) } else { Err(relay.log()) });
    let (started, before) = (Instant::now(), sent());
    wait_until("all rows", Duration::from_secs(60), || match sent() {
        rows if rows >= ROWS as f64 => Ok(()),
        rows => Err(format!("{rows} sent")),
    });
    let rate = (ROWS as f64 - before) / started.elapsed().as_secs_f64();
    eprintln!("relay from PostgreSQL: {rate:.0} rows a second");
    assert!(rate >= AT_LEAST, "{rate:.0} rows a second");
}
