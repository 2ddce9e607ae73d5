//! Confluent's Python client with its own Avro serializer.

use std::process::Command;

use auditstream_integration_tests::{Fixture, Options};

use super::{Other, exchange, schema_file, told};

struct Python;

impl Python {
    fn command(fixture: &Fixture, what: &str) -> Command {
        let python = told("AUDITSTREAM_CONFLUENT_PYTHON", "a Python with confluent-kafka");
        let mut command = auditstream_stack::bound(python.as_ref()).unwrap();
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/confluent.py"));
        command.args([what, fixture.stack().kafka_bootstrap(), fixture.topic(), fixture.registry_url(), schema_file()]);
        command
    }
}

impl Other for Python {
    const SINGLE_OBJECT: bool = false;

    fn produce(&self, fixture: &Fixture, _: bool) -> Command {
        Self::command(fixture, "produce")
    }

    fn consume(&self, fixture: &Fixture) -> Command {
        Self::command(fixture, "consume")
    }
}

#[test]
fn confluents_python_client_and_ours_read_each_other() {
    exchange(&Fixture::new(Options::light("interop-python")), &Python);
}
