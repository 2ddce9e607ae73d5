//! S3-compatible storage by other people (s3s-fs), on loopback: objects are files in a folder, which outlive the server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::wait::wait_until;

/// A server. Dropped, it is killed; the objects stay.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    url: String,
}

impl S3Server {
    /// Who may ask it.
    pub const ACCESS_KEY_ID: &str = "archivist";
    /// And with which secret.
    pub const SECRET_ACCESS_KEY: &str = "a-secret-that-no-log-may-hold";

    /// On a port of its own, with `root` as its buckets: each folder in it is one. Its log is beside it.
    ///
    /// # Panics
    /// When there is no such server, or it does not start.
    #[must_use]
    pub fn start(root: &Path) -> Self {
        let server = std::env::var_os("AUDITSTREAM_S3_SERVER").expect(
            "AUDITSTREAM_S3_SERVER must name an executable of s3s-fs; `cargo xtask test` installs one and sets it",
        );
        let log: PathBuf = root.with_extension("log");
        let out = File::create(&log).expect("the log's folder exists");
        let mut command = auditstream_stack::bound(Path::new(&server)).expect("the supervisor's executable is built");
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        command.args(["--access-key", Self::ACCESS_KEY_ID, "--secret-key", Self::SECRET_ACCESS_KEY]);
        command.arg(root).env("RUST_LOG", "s3s_fs=info").stdin(Stdio::null());
        command.stderr(out.try_clone().expect("a second handle")).stdout(out);
        let child = command.spawn().expect("the server can be started");
        let url = wait_until("the S3 server to listen", Duration::from_secs(30), || {
            let said = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let address = said.split_once("server is running at ").and_then(|(_, rest)| rest.split_once('\n'));
            // A line may be only half there.
            address.map(|(line, _)| line.trim_end_matches(',').trim().to_owned()).ok_or(said)
        });
        Self { child, url }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
