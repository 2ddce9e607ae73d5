//! `cargo xtask bench queries-postgres`, small: two servers with the same events give the same answers, and every figure of the comparison is there.

use auditstream_integration_tests::{Fixture, Options, bench_program};
use serde_json::Value;

const ROWS: u64 = 20_000;

#[test]
fn clickhouse_and_postgresql_answer_the_same() {
    let fixture = Fixture::new(Options::light("queries-postgres").bare());
    let (figures, results) = (fixture.folder().join("figures.json"), fixture.folder().join("results.json"));
    let mut command = auditstream_stack::bound(&bench_program()).unwrap();
    // The benchmark's tables are in the database `audit`, which no other test has.
    command.args(["queries-postgres", "--stack", fixture.stack().name(), "--rows", &ROWS.to_string()]);
    command.args(["--runs", "3", "--cold", "1"]).arg("--json").arg(&figures).arg("--results").arg(&results);
    let run = fixture.run_benchmark(command).success();
    assert!(run.stdout.contains("every answer was the same on both sides"), "{run:?}");

    let figures: Value = serde_json::from_slice(&std::fs::read(figures).unwrap()).unwrap();
    let questions = figures["questions"].as_array().unwrap();
    assert_eq!(questions.len(), 9);
    for question in questions {
        let title = question["title"].as_str().unwrap();
        for side in ["clickhouse", "postgres"] {
            for time in [&question[side]["p50_ms"], &question[side]["p95_ms"], &question[side]["cold"]["ms"]] {
                assert!(time.as_f64().is_some_and(|ms| ms > 0.0), "{title}, {side}: {question}");
            }
        }
        // So few events have a day on which nothing failed.
        let may_be_empty = title == "What fails, by action, on one day?";
        assert!(may_be_empty || question["answer_rows"].as_u64().unwrap() > 0, "{title}: {question}");
        assert!(!question["plan"]["ways"].as_str().unwrap().is_empty(), "{title}: {question}");
    }
    let looked_at = |place: usize| questions[place]["plan"]["rows"].as_u64().unwrap();
    assert_eq!(looked_at(questions.len() - 1), ROWS, "PostgreSQL counts every event");
    assert!(looked_at(0) < ROWS / 10, "an index finds an entity: {}", questions[0]);
    for (side, changes) in [("clickhouse", "changes.new"), ("postgres", "changes")] {
        let columns = figures[side]["sizes"]["columns"].as_array().unwrap();
        assert!(columns.iter().any(|column| column[0] == changes && column[1].as_f64().unwrap() > 0.0), "{columns:?}");
    }
    assert_eq!(figures["postgres"]["sizes"]["indexes"].as_array().unwrap().len(), 8);

    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    assert_eq!(results["name"], "queries-postgres");
    for section in results["sections"].as_array().unwrap() {
        let columns = section["columns"].as_array().unwrap().len();
        let rows = section["rows"].as_array().unwrap();
        assert!(rows.len() > 2 && rows.iter().all(|row| row.as_array().unwrap().len() == columns), "{section}");
    }
}
