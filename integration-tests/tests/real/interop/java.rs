//! Kafka's Java client with Apicurio's Avro serializer, and Avro's own single-object encoding.

use std::path::PathBuf;
use std::process::Command;

use auditstream_integration_tests::{Fixture, Options};

use super::{Other, exchange, schema_file, told};

/// The compiled program.
struct Java {
    class_path: String,
}

impl Java {
    fn compile(fixture: &Fixture) -> Self {
        let libraries = told("AUDITSTREAM_JAVA_CLASS_PATH", "Java's Avro and Apicurio's serializer");
        let classes = fixture.folder().join("classes");
        let mut javac = auditstream_stack::bound("javac".as_ref()).unwrap();
        javac.args(["-cp", &libraries, "-Xlint:all,-processing,-path", "-Werror", "-d"]).arg(&classes);
        javac.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/Interop.java"));
        fixture.run(javac, b"").success();
        Self { class_path: format!("{}:{libraries}", classes.display()) }
    }

    fn command(&self, fixture: &Fixture, what: &str) -> Command {
        let java = std::env::var_os("AUDITSTREAM_JAVA").map_or_else(|| PathBuf::from("java"), PathBuf::from);
        let mut command = auditstream_stack::bound(&java).unwrap();
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        // Compression libraries unpack themselves there.
        command.arg(format!("-Djava.io.tmpdir={}", fixture.folder().display()));
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dfile.encoding=UTF-8"]);
        command.args(["-cp", &self.class_path, "Interop", what, fixture.stack().kafka_bootstrap(), fixture.topic()]);
        command.args([fixture.registry_url(), schema_file()]);
        command
    }
}

impl Other for Java {
    const SINGLE_OBJECT: bool = true;

    fn produce(&self, fixture: &Fixture, single_object: bool) -> Command {
        self.command(fixture, if single_object { "produce-single-object" } else { "produce" })
    }

    fn consume(&self, fixture: &Fixture) -> Command {
        self.command(fixture, "consume")
    }
}

#[test]
fn javas_client_and_ours_read_each_other_and_agree_on_partitions() {
    let fixture = Fixture::new(Options::light("interop-java"));
    exchange(&fixture, &Java::compile(&fixture));
}
