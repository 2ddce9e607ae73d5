//! Six questions an analyst asks: each with its SQL, as the analyst's own user would type it, and its answer.

use std::time::Instant;

use anyhow::Result;
use auditstream_bench::clickhouse::quoted;
use auditstream_bench::sources::TENANT;

use crate::run::Demo;

/// Asks all six; the first one is about `order`, by tenant, type and id.
pub(crate) async fn ask(demo: &Demo<'_>, order: Option<[String; 3]>) -> Result<()> {
    if let Some(order) = order {
        answer(
            demo,
            "What was done with this order of the service just seen?",
            &history(&order, "\n  AND action != 'order.read'"),
        )
        .await?;
    }
    let Some(entity) = most_changed(demo).await? else {
        demo.screen.say("  no events");
        return Ok(());
    };
    answer(demo, "What happened to this one entity?", &history(&entity, "")).await?;
    let Some((tenant, actor)) = busiest_person(demo).await? else { return Ok(()) };
    answer(demo, "What did this person do?", &deeds(&tenant, &actor)).await?;
    answer(demo, "What fails, and what is refused?", FAILURES).await?;
    answer(demo, "Which entities were the busiest of each day?", BUSIEST).await?;
    answer(demo, "How many events a minute, just now?", RATE).await
}

async fn answer(demo: &Demo<'_>, question: &str, sql: &str) -> Result<()> {
    let begun = Instant::now();
    let table = demo.screen.bar("asking", 0).during(|| 0, demo.analyst.table(sql)).await?;
    let took = begun.elapsed();
    demo.screen.say(&format!("\n  {question}\n"));
    for line in sql.lines() {
        demo.screen.say(&format!("    {line}"));
    }
    demo.screen.say(&format!("\n{}    ({} ms)", table.render(4), took.as_millis()));
    Ok(())
}

/// Tenant, type and id of what real history has most of: a file of the git history before a package, a generated entity otherwise.
async fn most_changed(demo: &Demo<'_>) -> Result<Option<[String; 3]>> {
    let sql = format!(
        "SELECT tenant_id, entity_type, entity_id FROM events WHERE service IN ('git', 'dpkg') OR tenant_id != '{TENANT}'
         GROUP BY tenant_id, entity_type, entity_id ORDER BY entity_type = 'file' DESC, entity_type = 'package' DESC, count() DESC LIMIT 1"
    );
    Ok(demo.analyst.row(&sql).await?.and_then(|row| row.try_into().ok()))
}

/// Who did most on the git history, or in the generated load.
async fn busiest_person(demo: &Demo<'_>) -> Result<Option<(String, String)>> {
    let sql = "SELECT tenant_id, actor_id FROM events WHERE actor_kind = 'USER' AND service != 'auditstream-demo' AND actor_id != ''
               GROUP BY tenant_id, actor_id ORDER BY max(service = 'git') DESC, count() DESC LIMIT 1";
    Ok(demo
        .analyst
        .row(sql)
        .await?
        .and_then(|row| <[String; 2]>::try_from(row).ok())
        .map(|[tenant, actor]| (tenant, actor)))
}

/// `more` stands behind the conditions.
fn history([tenant, kind, id]: &[String; 3], more: &str) -> String {
    format!(
        "SELECT toDateTime(occurred_at) AS at, action, if(actor_name = '', actor_id, actor_name) AS actor,
       arrayStringConcat(arrayMap((p, o, n) -> concat(p, ': ', if(o = '', '-', o), ' -> ',
         if(n = '', '-', n)), changes.path, changes.old, changes.new), ', ') AS changes
FROM events
WHERE tenant_id = {} AND entity_type = {}
  AND entity_id = {}{more}
ORDER BY occurred_at DESC, event_id DESC LIMIT 8",
        quoted(tenant),
        quoted(kind),
        quoted(id)
    )
}

fn deeds(tenant: &str, actor: &str) -> String {
    format!(
        "SELECT action, count() AS events, uniqExact(entity_type, entity_id) AS entities,
       countIf(outcome != 'SUCCESS') AS unsuccessful, toDateTime(min(occurred_at)) AS first,
       toDateTime(max(occurred_at)) AS last
FROM events
WHERE tenant_id = {} AND actor_id = {}
GROUP BY action ORDER BY events DESC LIMIT 10",
        quoted(tenant),
        quoted(actor)
    )
}

const FAILURES: &str = "\
SELECT action, count() AS tries, countIf(outcome = 'FAILURE') AS failed,
       countIf(outcome = 'DENIED') AS denied, round(100 * (failed + denied) / tries, 1) AS percent,
       topKIf(1)(error_message, outcome = 'FAILURE')[1] AS most_common_error
FROM events
GROUP BY action HAVING failed + denied > 0
ORDER BY failed + denied DESC LIMIT 10";

const BUSIEST: &str = "\
SELECT toDate(occurred_at) AS day, tenant_id, entity_type, entity_id, count() AS events,
       uniqExact(actor_id) AS actors
FROM events
GROUP BY day, tenant_id, entity_type, entity_id
ORDER BY day DESC, events DESC, entity_id LIMIT 3 BY day LIMIT 12";

const RATE: &str = "\
WITH (SELECT max(occurred_at) FROM events) AS newest
SELECT toStartOfMinute(occurred_at) AS minute, count() AS events,
       uniqExact(tenant_id, actor_id) AS actors, bar(events, 0, max(events) OVER (), 40) AS chart
FROM events
WHERE occurred_at > newest - INTERVAL 12 MINUTE
GROUP BY minute ORDER BY minute DESC LIMIT 12";
