//! The schema registry of a stack: how it is started. In memory, so that what was registered is gone after a restart.

use std::path::Path;
use std::process::Command;

use crate::hook::{SELF, bound_command};
use crate::install;

/// Where the API that producers and consumers speak begins.
pub(crate) const PATH: &str = "/apis/ccompat/v7";

/// What a start needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) installed: install::Registry,
    pub(crate) port: u16,
    /// Health and metrics; nobody asks there, but it can't be moved to the other port without changing its API.
    pub(crate) management_port: u16,
}

impl Plan {
    /// The base URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// The command; `dir` is the stack's folder, which gets every file that it makes.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut command = bound_command(Path::new(SELF), &self.installed.java);
        // Quarkus takes settings of any name from the environment.
        command.env_clear();
        for name in ["PATH", "LANG", "LC_ALL"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.args(["-Xms32m", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"]);
        for (key, value) in [
            ("java.io.tmpdir", dir.display().to_string()),
            ("user.home", dir.display().to_string()),
            ("quarkus.http.host", "127.0.0.1".into()),
            ("quarkus.http.port", self.port.to_string()),
            ("quarkus.management.host", "127.0.0.1".into()),
            ("quarkus.management.port", self.management_port.to_string()),
        ] {
            command.arg(format!("-D{key}={value}"));
        }
        command.arg("-jar").arg(&self.installed.jar);
        command
    }
}
