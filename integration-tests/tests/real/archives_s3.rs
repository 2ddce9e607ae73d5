//! Archives in S3-compatible storage: as in a folder, and what a network and another server add.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use auditstream_integration_tests::{CliOutput, Fault, Fixture, Options, Proxy, S3Server, wait_until};

use crate::archives::{fill, rows, table};

const PLACE: &str = "s3://audit/some/prefix";

struct World {
    server: S3Server,
    fixture: Fixture,
    /// What the server takes for its buckets.
    root: PathBuf,
}

impl World {
    fn new(name: &'static str) -> Self {
        let fixture = Fixture::new(Options::light(name));
        let root = fixture.folder().join("s3");
        std::fs::create_dir_all(root.join("audit")).unwrap();
        std::fs::write(fixture.folder().join("secret"), format!("{}\n", S3Server::SECRET_ACCESS_KEY)).unwrap();
        Self { server: S3Server::start(&root), fixture, root }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.fixture.admin_command(args);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"] {
            command.env_remove(name);
        }
        command.env("AUDITSTREAM_ARCHIVE__S3_PLAIN_HTTP", "on").env("AUDITSTREAM_ARCHIVE__S3_TIMEOUT_MS", "20000");
        command.env("AWS_ENDPOINT_URL", self.server.url());
        command
    }

    /// With the secret in a file.
    fn signed(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("AUDITSTREAM_ARCHIVE__S3_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID);
        command.env("AUDITSTREAM_ARCHIVE__S3_SECRET_ACCESS_KEY_FILE", self.fixture.folder().join("secret"));
        command
    }

    fn run(&self, command: Command) -> CliOutput {
        let output = self.fixture.run(command, b"");
        assert!(!format!("{output:?}").contains(S3Server::SECRET_ACCESS_KEY), "{output:?}");
        output
    }

    fn archive(&self, more: &[&str]) -> CliOutput {
        self.run(self.signed(&[&["archive", "--to", PLACE], more].concat()))
    }

    fn restore(&self, more: &[&str]) -> CliOutput {
        let names = self.archives().into_iter().map(|folder| folder.file_name().unwrap().to_owned());
        let places: Vec<_> = names.map(|name| format!("{PLACE}/{}", name.to_str().unwrap())).collect();
        let places: Vec<_> = places.iter().map(String::as_str).collect();
        self.run(self.signed(&[&["restore"], more, &places].concat()))
    }

    /// As the server keeps them.
    fn archives(&self) -> Vec<PathBuf> {
        let prefix = self.root.join("audit/some/prefix");
        let mut all: Vec<_> = std::fs::read_dir(prefix).into_iter().flatten().map(|it| it.unwrap().path()).collect();
        all.sort();
        all
    }

    fn objects(&self) -> Vec<PathBuf> {
        let files = |folder: &PathBuf| std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let mut all: Vec<_> = self.archives().iter().flat_map(files).collect();
        all.sort();
        all
    }

    /// Half a day's 40 MB of it in each of two files, which go up in parts.
    fn fill_with_much(&self) {
        self.fixture.admin().run(
            "INSERT INTO events (tenant_id, entity_id, occurred_at, event_id, content_hash, received_at, details) \
             SELECT 'acme', toString(number), toDateTime64('2026-04-05 00:00:00', 6, 'UTC') + toIntervalSecond(number), \
             reinterpretAsUUID(sipHash128(number)), sipHash128(number, 2), '2026-04-05', randomPrintableASCII(20000) FROM numbers(2000)",
        );
    }
}

#[test]
fn a_partition_goes_to_a_bucket_and_comes_back_row_for_row() {
    let world = World::new("archive-s3");
    fill(&world.fixture);
    let before = table(&world.fixture);
    let dry = world.archive(&["--before", "2300-01", "--dry-run", "--drop"]).success();
    assert!(dry.stdout.contains("nothing was written"), "{dry:?}");
    assert_eq!(world.objects().len(), 0);

    let archived = world.archive(&["--before", "2300-01", "--file-rows", "100"]).success();
    assert!(archived.stdout.contains(&format!("rows archived and verified, in {PLACE}/")), "{archived:?}");
    assert_eq!(rows(&archived), 2_000, "duplicates are archived once: {archived:?}");
    let objects = world.objects();
    assert!(objects.len() > 30, "a file for each day, more for days of many rows: {objects:?}");
    let written = |object: &PathBuf| std::fs::metadata(object).unwrap().modified().unwrap();
    let times: Vec<_> = objects.iter().map(written).collect();
    let again = world.archive(&["--before", "2300-01", "--file-rows", "100"]).success();
    assert_eq!(again.stdout.matches("were archived before").count(), world.archives().len(), "{again:?}");
    assert_eq!(world.objects().iter().map(written).collect::<Vec<_>>(), times, "nothing is written twice");

    // An object that is no longer what it was, and then none at all.
    let object = objects.iter().find(|object| object.ends_with("2026-03-05-000.parquet")).unwrap();
    let whole = std::fs::read(object).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let name = format!("s3://{}", object.strip_prefix(&world.root).unwrap().display());
    let refused = |word: &str| {
        let month = ["--month", "2026-03"];
        let drop = [&month[..], &["--drop", "--yes"]].concat();
        let all = [world.archive(&month), world.archive(&drop), world.restore(&[]), world.restore(&["--dry-run"])];
        for output in all {
            assert_eq!(output.code(), Some(1), "{output:?}");
            assert!(output.stderr.contains(&name) && output.stderr.contains(word), "{output:?}");
        }
        assert_eq!(table(&world.fixture), before);
    };
    std::fs::write(object, &bytes).unwrap();
    refused("its SHA-256 is another");
    std::fs::remove_file(object).unwrap();
    refused("the storage answers NoSuchKey");
    std::fs::write(object, &whole).unwrap();

    let dropped = world.archive(&["--month", "2026-03", "--drop", "--yes"]).success();
    assert_eq!(rows(&dropped), 2_000, "{dropped:?}");
    world.fixture.admin().run("TRUNCATE TABLE events");
    let dry = world.restore(&["--dry-run"]).success();
    assert_eq!(dry.stdout.matches("rows are whole").count(), world.archives().len(), "{dry:?}");
    assert_eq!(world.fixture.raw_rows(), 0);
    world.restore(&[]).success();
    assert_eq!(table(&world.fixture), before, "every column of every row is as it was");
    let raw = world.fixture.raw_rows();
    world.restore(&[]).success();
    assert_eq!(world.fixture.raw_rows(), raw, "what is there is not inserted again");
}

#[test]
fn an_upload_that_a_dead_server_broke_off_is_told_and_mended() {
    let mut world = World::new("archive-s3-torn");
    world.fill_with_much();
    let before = table(&world.fixture);
    let month = ["--month", "2026-04", "--file-rows", "1000"];
    let proxy = Proxy::start(world.server.url());
    // The first file is there; of the second one a part is on its way.
    proxy.strike("-001.parquet?partNumber=2", 1, Fault::HoldAfter(1 << 20));
    let mut command = world.signed(&[&["archive", "--to", PLACE, "--drop", "--yes"], &month[..]].concat());
    command.env("AWS_ENDPOINT_URL", proxy.url()).env("AUDITSTREAM_ARCHIVE__S3_TIMEOUT_MS", "3000");
    let (server, fixture) = (&mut world.server, &world.fixture);
    let broken = std::thread::scope(|scope| {
        let archived = scope.spawn(|| fixture.run(command, b""));
        wait_until("a part to be half sent", Duration::from_secs(60), || match proxy.holding() {
            0 => Err(format!("{archived:?}")),
            _ => Ok(()),
        });
        server.kill();
        proxy.heal();
        archived.join().unwrap()
    });
    assert_eq!(broken.code(), Some(1), "{broken:?}");
    assert!(broken.stderr.contains("can't write s3://audit/some/prefix/"), "{broken:?}");
    assert!(broken.stderr.contains("2026-04-05-001.parquet"), "{broken:?}");
    assert!(broken.stderr.contains("the storage can't be asked"), "{broken:?}");
    assert_eq!(world.objects().len(), 1, "without a manifest");
    assert_eq!(table(&world.fixture), before, "nothing was dropped");

    world.server = S3Server::start(&world.root);
    let torn = world.restore(&[]);
    assert_eq!(torn.code(), Some(1), "{torn:?}");
    assert!(torn.stderr.contains("manifest.json") && torn.stderr.contains("NoSuchKey"), "{torn:?}");
    let mended = world.archive(&[&month[..], &["--drop", "--yes"]].concat()).success();
    assert!(mended.stderr.contains("has files of an archive that broke off; they are written anew"), "{mended:?}");
    assert!(
        mended.stdout.contains("2,000 rows archived and verified") && mended.stdout.contains("; dropped"),
        "{mended:?}"
    );
    assert_eq!(world.objects().len(), 3);
    assert_eq!(world.fixture.raw_rows(), 0);
    world.restore(&[]).success();
    assert_eq!(table(&world.fixture), before);
}

#[test]
fn what_is_wrong_with_the_storage_is_told_before_anything_is_written() {
    let world = World::new("archive-s3-wrong");
    world
        .fixture
        .admin()
        .run("INSERT INTO events (tenant_id, occurred_at, received_at) VALUES ('acme', '2026-03-01', '2026-03-01')");
    let args = ["archive", "--to", PLACE, "--month", "2026-03"];
    let with = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = world.command(args);
        let credentials =
            [("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY)];
        command.envs(credentials).envs(environment.iter().copied());
        world.run(command)
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = world.fixture.stack().clickhouse_url();
    let elsewhere = ["archive", "--to", "s3://elsewhere/x", "--month", "2026-03"];
    for (args, environment, code, words) in [
        (&args, ("AWS_SECRET_ACCESS_KEY", "another"), 1, "the storage answers SignatureDoesNotMatch"),
        (&elsewhere, ("NO_COLOR", "1"), 1, "the storage answers NoSuchBucket"),
        (&args, ("AWS_ENDPOINT_URL", &*format!("http://{nobody}")), 1, "the storage can't be asked: "),
        (&args, ("AWS_ENDPOINT_URL", other), 1, "does archive.s3_endpoint name S3-compatible storage?"),
        (&args, ("AUDITSTREAM_ARCHIVE__S3_PLAIN_HTTP", "off"), 2, "(AWS_ENDPOINT_URL): is not encrypted"),
        (&args, ("AWS_SECRET_ACCESS_KEY", ""), 2, "archive.s3_access_key_id: must be set for s3://"),
        (
            &args,
            ("AUDITSTREAM_ARCHIVE__S3_ACCESS_KEY_ID", "x"),
            2,
            "archive.s3_secret_access_key: must be set together",
        ),
    ] {
        let output = with(args, &[environment]);
        assert_eq!(output.code(), Some(code), "{environment:?}: {output:?}");
        assert!(output.stderr.contains(words), "{environment:?}: {output:?}");
    }
    let wrong = with(&["archive", "--to", "s3://", "--month", "2026-03"], &[]);
    assert!(wrong.code() == Some(2) && wrong.stderr.contains("s3://BUCKET/PREFIX"), "{wrong:?}");
    let absent = with(&["restore", &format!("{PLACE}/none")], &[]);
    assert!(
        absent.code() == Some(1) && absent.stderr.contains("can't read s3://audit/some/prefix/none/manifest.json"),
        "{absent:?}"
    );
    assert_eq!(std::fs::read_dir(world.root.join("audit")).unwrap().count(), 0);
    with(&args, &[]).success();
}
