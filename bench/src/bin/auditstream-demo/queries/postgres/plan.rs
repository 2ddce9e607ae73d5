//! What PostgreSQL did for a question, from EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON).

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Bytes of a page.
const PAGE: u64 = 8192;

/// The gist of a plan that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Plan {
    /// How it came to the rows: `Index Scan by_entity`, `Parallel Seq Scan, JIT`, several joined by `, `.
    pub(super) ways: String,
    /// Rows looked at, those that were then left out too.
    pub(super) rows: u64,
    /// Bytes of the pages looked at, wherever they were.
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "Plan")]
    plan: Node,
    /// There when expressions were compiled for it.
    #[serde(rename = "JIT")]
    jit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "Node Type")]
    kind: String,
    #[serde(rename = "Parallel Aware", default)]
    is_parallel: bool,
    #[serde(rename = "Index Name")]
    index: Option<String>,
    #[serde(rename = "Relation Name")]
    table: Option<String>,
    #[serde(rename = "Actual Rows", default)]
    rows: f64,
    #[serde(rename = "Actual Loops", default)]
    loops: f64,
    #[serde(rename = "Rows Removed by Filter", default)]
    filtered: f64,
    #[serde(rename = "Rows Removed by Index Recheck", default)]
    rechecked: f64,
    #[serde(rename = "Shared Hit Blocks", default)]
    hit: u64,
    #[serde(rename = "Shared Read Blocks", default)]
    read: u64,
    #[serde(default)]
    plans: Vec<Node>,
}

impl Plan {
    pub(super) fn read(json: &str) -> Result<Self> {
        let explained: Vec<Explained> = serde_json::from_str(json).context("EXPLAIN answered in another form")?;
        let Explained { plan, jit } = explained.into_iter().next().context("EXPLAIN answered nothing")?;
        let (mut ways, mut rows) = (Vec::new(), 0.0);
        gather(&plan, &mut ways, &mut rows);
        if jit.is_some() {
            ways.push("JIT".to_owned());
        }
        // The pages of a node are those of the ones below it too.
        Ok(Self { ways: ways.join(", "), rows: rows as u64, bytes: (plan.hit + plan.read) * PAGE })
    }
}

fn gather(node: &Node, ways: &mut Vec<String>, rows: &mut f64) {
    let parallel = if node.is_parallel { "Parallel " } else { "" };
    if let Some(index) = &node.index {
        ways.push(format!("{parallel}{} {index}", node.kind));
    } else if node.table.is_some() && node.kind != "Bitmap Heap Scan" {
        ways.push(format!("{parallel}{}", node.kind));
    }
    if node.table.is_some() {
        // Each is the mean of a loop, and each worker is one.
        *rows += (node.rows + node.filtered + node.rechecked) * node.loops;
    }
    node.plans.iter().for_each(|below| gather(below, ways, rows));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_left_out_count_and_so_do_all_workers() {
        let json = r#"[{"Plan": {"Node Type": "Aggregate", "Actual Rows": 3, "Actual Loops": 1, "Shared Hit Blocks": 10, "Shared Read Blocks": 2, "Plans": [
            {"Node Type": "Seq Scan", "Parallel Aware": true, "Relation Name": "audit_events", "Actual Rows": 100, "Actual Loops": 3, "Rows Removed by Filter": 50,
             "Shared Hit Blocks": 9, "Shared Read Blocks": 2}]}, "Planning Time": 0.1, "JIT": {"Functions": 8}}]"#;
        assert_eq!(
            Plan::read(json).unwrap(),
            Plan { ways: "Parallel Seq Scan, JIT".to_owned(), rows: 450, bytes: 12 * 8192 }
        );
    }

    #[test]
    fn a_bitmap_tells_its_indexes() {
        let json = r#"[{"Plan": {"Node Type": "Bitmap Heap Scan", "Relation Name": "audit_events", "Actual Rows": 7, "Actual Loops": 1, "Rows Removed by Index Recheck": 2, "Plans": [
            {"Node Type": "BitmapAnd", "Actual Rows": 0, "Actual Loops": 1, "Plans": [
                {"Node Type": "Bitmap Index Scan", "Index Name": "by_word", "Actual Rows": 9, "Actual Loops": 1},
                {"Node Type": "Bitmap Index Scan", "Index Name": "by_time", "Actual Rows": 99, "Actual Loops": 1}]}]}}]"#;
        let plan = Plan::read(json).unwrap();
        assert_eq!(
            (plan.ways.as_str(), plan.rows, plan.bytes),
            ("Bitmap Index Scan by_word, Bitmap Index Scan by_time", 9, 0)
        );
        assert!(Plan::read("[]").is_err() && Plan::read("no").is_err());
    }
}
