//! The benchmarks of ingest on a small load, so that they don't rot. They check themselves that every side has stored the same rows.

use auditstream_integration_tests::{Fixture, Options, bench_program};
use serde_json::Value as Json;

#[test]
fn ingest_is_measured_and_every_side_stores_the_same_rows() {
    let fixture = Fixture::new(Options::own_servers("bench-ingest").bare());
    assert!(!fixture.registry_url().is_empty());
    let results = fixture.stack().dir().join("ingest.json");
    let mut command = auditstream_stack::bound(&bench_program()).expect("the supervisor's executable is built");
    command.args(["ingest", "--stack", fixture.stack().name(), "--only", "base", "--events", "20000", "--rounds", "1"]);
    command.arg("--results").arg(&results);
    let said = fixture.run_benchmark(command).success().stdout;

    let results: Json = serde_json::from_slice(&std::fs::read(results).expect("it was written")).expect("it is JSON");
    let rows = results["sections"][0]["rows"].as_array().expect("the first section is a table");
    let sides: Vec<&str> = rows.iter().filter_map(|row| row[0].as_str()).collect();
    assert_eq!(sides, ["ours, 1 worker", "ours, 2 workers", "Kafka engine"], "{said}");
    for row in rows {
        let rate: f64 = row[1].as_str().expect("a text").parse().expect("one round has one figure");
        assert!(rate > 0.0, "{row}");
    }
    let ceilings = results["sections"][1]["rows"].as_array().expect("the second section is a table");
    assert_eq!(ceilings.len(), 3);
    assert_eq!(results["goals"].as_array().map(Vec::len), Some(5), "{said}");
}
