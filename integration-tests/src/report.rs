//! What a fault test leaves behind: one record a fault, for the table that `cargo xtask test` and `cargo xtask faults` print.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use crate::oracle::Verdict;

/// Whether the long form is asked for: `cargo xtask faults --long`.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("AUDITSTREAM_FAULTS_LONG").is_some_and(|long| !long.is_empty() && long != "0")
}

/// The record of one fault. Dropped without [`Self::passed`], as by a failed test, it says that the fault was not survived.
#[derive(Debug)]
pub struct FaultReport {
    fault: String,
    runs: u64,
    events: u64,
    lost: u64,
    double: u64,
    recovered: Duration,
    figures: serde_json::Map<String, serde_json::Value>,
    passed: bool,
}

impl FaultReport {
    /// For `fault`: its row in the list of faults, and in a few words what it is.
    #[must_use]
    pub fn new(fault: impl Into<String>) -> Self {
        Self {
            fault: fault.into(),
            runs: 0,
            events: 0,
            lost: 0,
            double: 0,
            recovered: Duration::ZERO,
            figures: serde_json::Map::new(),
            passed: false,
        }
    }

    /// The fault happened once more.
    pub fn run(&mut self) {
        self.runs += 1;
    }

    /// How often the fault happened so far.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// The fault was over by itself, or its cause was gone, so long ago when rows were inserted again. The longest time counts.
    pub fn recovered(&mut self, took: Duration) {
        self.recovered = self.recovered.max(took);
    }

    /// Something else that was measured; its name ends in its unit.
    pub fn figure(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// What the oracle says.
    pub fn judged(&mut self, verdict: &Verdict) {
        (self.events, self.lost, self.double) = (verdict.events, verdict.lost, verdict.double);
    }

    /// The test is over and everything was as it should.
    pub fn passed(mut self) {
        assert!(self.runs > 0, "{} never happened", self.fault);
        self.passed = true;
    }
}

impl Drop for FaultReport {
    fn drop(&mut self) {
        let Some(file) = std::env::var_os("AUDITSTREAM_FAULTS_REPORT") else { return };
        let mut record = serde_json::json!({
            "fault": self.fault,
            "runs": self.runs,
            "events": self.events,
            "lost": self.lost,
            "double": self.double,
            "recovered_ms": u64::try_from(self.recovered.as_millis()).unwrap_or(u64::MAX),
            "passed": self.passed,
        });
        if !self.figures.is_empty() {
            record["figures"] = std::mem::take(&mut self.figures).into();
        }
        // One write a line: other tests append too.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut report| report.write_all(format!("{record}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("the report of {} could not be written: {error}", self.fault);
        }
    }
}
