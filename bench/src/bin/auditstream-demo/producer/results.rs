//! The figures for the report, in words.

use auditstream_bench::results::{Goal, Results, Section};
use auditstream_bench::table::thousands;
use auditstream_bench::versions;

use super::report::Report;
use super::{Args, Codec};

/// What a figure is, and the other one that shows what bounds it.
fn words(name: &str) -> (&str, Option<&str>) {
    let what = match name {
        "record_p50_ns" => "`record` at 100,000 events a second, one thread, p50, ns",
        "record_p99_ns" => "`record` at 100,000 events a second, one thread, p99, ns",
        "record_p999_ns" => "`record` at 100,000 events a second, one thread, p99.9, ns",
        "record_4_threads_per_s" => "`record` from four threads until the queue is full, events a second",
        "acknowledged_per_s" => "`record` to acknowledgement, events a second",
        "process_cpu_s_per_million" => "`record` to acknowledgement, CPU-s per million, process",
        "kafka_cpu_s_per_million" => "`record` to acknowledgement, CPU-s per million, broker",
        "no_headers_acknowledged_per_s" => "without CloudEvents headers, events a second",
        "no_headers_process_cpu_s_per_million" => "without CloudEvents headers, CPU-s per million, process",
        "librdkafka_per_s" => "librdkafka alone, ready records, events a second",
        "librdkafka_cpu_s_per_million" => "librdkafka alone, ready records, CPU-s per million",
        "librdkafka_no_headers_per_s" => "librdkafka alone, no headers, events a second",
        "librdkafka_no_headers_cpu_s_per_million" => "librdkafka alone, no headers, CPU-s per million",
        "spill_in_per_s" => "to the spill's disk while Kafka is away, events a second",
        "spill_in_cpu_s_per_million" => "to the spill's disk while Kafka is away, CPU-s per million",
        "spill_out_per_s" => "from the spill's disk to Kafka, events a second",
        "spill_out_cpu_s_per_million" => "from the spill's disk to Kafka, CPU-s per million",
        "relay_rows_per_s" => "an outbox in PostgreSQL emptied by one relay, rows a second",
        "rss_full_mib" => "resident memory, the queue full, Kafka away, MiB",
        "rss_growth_mib" => "growth of that while the service goes on, MiB",
        other => other,
    };
    let bound = match name {
        "acknowledged_per_s" => Some("librdkafka_per_s"),
        "process_cpu_s_per_million" => Some("librdkafka_cpu_s_per_million"),
        "no_headers_acknowledged_per_s" => Some("librdkafka_no_headers_per_s"),
        "no_headers_process_cpu_s_per_million" => Some("librdkafka_no_headers_cpu_s_per_million"),
        _ => None,
    };
    (what, bound)
}

/// For `bench/results/producer.json`.
pub(super) fn of(report: &Report, args: &Args) -> Results {
    let command = format!("cargo xtask bench producer --results --events {} --runs {}", args.events, args.runs);
    let mut results = Results::new("producer", "Producer: what the library costs and carries", &command);
    results.versions = versions::with_kafka();
    let compression = match args.compression {
        Some(Codec::Zstd) | None => "zstd",
        Some(Codec::Lz4) => "lz4",
        Some(Codec::None) => "none",
    };
    for (name, value) in [
        ("events a run of the whole path", thousands(args.events)),
        ("rows a run of the relay", thousands(args.rows)),
        ("runs of each scenario", args.runs.to_string()),
        ("compression", compression.to_owned()),
        ("librdkafka properties beside the library's", args.properties.join(", ")),
    ] {
        if !value.is_empty() {
            results.settings.insert(name.to_owned(), value);
        }
    }
    let figures = report.figures();
    for figure in figures {
        let (Some(wanted), Some(reached)) = (figure.target(), figure.reached()) else { continue };
        let (what, bound) = words(figure.name());
        let bound = bound.filter(|_| !reached).and_then(|name| figures.iter().find(|other| other.name() == name));
        let bound_by = bound.map(|bound| format!("librdkafka alone in the same run: {}", bound.median_text()));
        results.goals.push(Goal {
            what: what.to_owned(),
            wanted,
            got: figure.median_text(),
            reached,
            bound_by: bound_by.unwrap_or_default(),
        });
    }
    let row = |figure: &super::Figure| {
        let what = words(figure.name()).0.to_owned();
        vec![what, figure.median_text(), figure.range(), figure.target().unwrap_or_default()]
    };
    results.sections.push(Section {
        title: "Figures".to_owned(),
        text: vec![
            "Events of about 300 bytes, made before the clock starts or on a clock of their own; CPU time of the process is without the making of events. \
             librdkafka alone has ready keys, payloads and header texts, and the library's settings: no producer on it can go below."
                .to_owned(),
        ],
        columns: ["what", "median", "runs", "wanted"].map(str::to_owned).to_vec(),
        rows: figures.iter().map(row).collect(),
        ..Section::default()
    });
    results
}
