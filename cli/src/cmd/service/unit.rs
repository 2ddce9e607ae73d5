//! The unit's text. What each line is for stands beside it; see systemd.service(5), systemd.exec(5) and systemd.resource-control(5).

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::exit;

/// First line of every unit that this program wrote.
pub(super) const MARK: &str = "# Written by `auditstream service install`.";
/// What `/livez` allows a worker's loop and a relay's, and some.
const WORKER_WATCHDOG_S: u64 = 90;
const RELAY_WATCHDOG_S: u64 = 150;
/// Beyond the drain deadline: to leave the group, and to end.
const GRACE: Duration = Duration::from_secs(10);

/// What a unit is made of.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) program: &'a Path,
    pub(super) config: Option<&'a Path>,
    /// The command.
    pub(super) word: &'a str,
    pub(super) is_relay: bool,
    pub(super) is_user: bool,
    pub(super) run_as: Option<&'a str>,
    pub(super) memory_max: &'a str,
    /// The one folder that it may write, beside what is private to it.
    pub(super) writes: Option<&'a Path>,
    pub(super) drain: Duration,
    pub(super) is_watched: bool,
}

/// For every service manager: what seccomp does, which needs no right but NoNewPrivileges.
const SANDBOX: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
";

/// For the system's manager, which may mount and drop.
const SYSTEM_SANDBOX: &str = "\
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
CapabilityBoundingSet=
AmbientCapabilities=
RemoveIPC=yes
";

impl Unit<'_> {
    /// The whole file.
    ///
    /// # Errors
    /// A path that a unit can't hold.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let what = if self.is_relay { "relay of the outbox" } else { "worker" };
        let mut out = format!("{MARK}\n");
        // Writing to a String can't fail.
        let _ = write!(
            out,
            "[Unit]\nDescription=auditstream {what}\nWants=network-online.target\nAfter=network-online.target\n\
             # More than 10 starts in 5 minutes: a human is needed.\nStartLimitIntervalSec=300\nStartLimitBurst=10\n\n"
        );
        let _ = write!(out, "[Service]\nType=notify\nNotifyAccess=main\nExecStart={}", quoted(self.program)?);
        if let Some(config) = self.config {
            let _ = write!(out, " --config {}", quoted(config)?);
        }
        let _ = writeln!(out, " {}", self.word);
        let _ = write!(
            out,
            "# SIGTERM: what was read is stored and committed first, within the drain deadline of {} s.\n\
             KillSignal=SIGTERM\nKillMode=mixed\nTimeoutStopSec={}\nTimeoutStartSec=60\n\
             Restart=on-failure\nRestartSec=5\n\
             # {} wrong configuration, {} halted: nothing is lost, and only a human can help.\nRestartPreventExitStatus={} {}\n",
            self.drain.as_secs_f64(),
            (self.drain + GRACE).as_secs_f64().ceil(),
            exit::USAGE,
            exit::HALTED,
            exit::USAGE,
            exit::HALTED,
        );
        if self.is_watched {
            let seconds = if self.is_relay { RELAY_WATCHDOG_S } else { WORKER_WATCHDOG_S };
            let _ = write!(
                out,
                "# A sign of life comes only while /livez says that the loop comes round.\nWatchdogSec={seconds}\n"
            );
        }
        let _ = writeln!(out, "MemoryMax={}\nTasksMax=256\nLimitNOFILE=65536\n", self.memory_max);
        out.push_str(SANDBOX);
        if !self.is_user {
            out.push_str(SYSTEM_SANDBOX);
            if let Some(folder) = self.writes {
                let _ = writeln!(
                    out,
                    "# The outbox: SQLite writes beside the database, too.\nReadWritePaths={}",
                    listed(folder)?
                );
            }
            match self.run_as {
                Some(user) => {
                    let _ = writeln!(out, "User={user}");
                }
                None => out.push_str("DynamicUser=yes\n"),
            }
        }
        let target = if self.is_user { "default.target" } else { "multi-user.target" };
        let _ = write!(out, "\n[Install]\nWantedBy={target}\n");
        Ok(out)
    }
}

/// A path as text.
fn plain(path: &Path) -> anyhow::Result<&str> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8, so a unit can't name it", path.display()))?;
    if text.chars().any(char::is_control) {
        bail!("{text:?} has a control character, so a unit can't name it");
    }
    Ok(text)
}

/// A path in a list of paths, where systemd takes a backslash as it stands.
fn listed(path: &Path) -> anyhow::Result<String> {
    let text = plain(path)?;
    if text.contains(['"', '\\']) {
        bail!("{text} has a quote or a backslash, so a unit can't let it be written");
    }
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// A path as one word of a command line.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = plain(path)?;
    // % begins a specifier, $ a variable.
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn unit() -> Unit<'static> {
        Unit {
            program: Path::new("/opt/audit stream/100%"),
            config: Some(Path::new("/etc/auditstream.toml")),
            word: "consume",
            is_relay: false,
            is_user: false,
            run_as: None,
            memory_max: "512M",
            writes: None,
            drain: Duration::from_millis(25_500),
            is_watched: true,
        }
    }

    #[test]
    fn the_unit_says_what_was_asked() {
        let text = unit().text().unwrap();
        assert!(text.starts_with(MARK));
        for line in [
            "ExecStart=\"/opt/audit stream/100%%\" --config \"/etc/auditstream.toml\" consume",
            "TimeoutStopSec=36",
            "RestartPreventExitStatus=2 3",
            "WatchdogSec=90",
            "MemoryMax=512M",
            "DynamicUser=yes",
            "ProtectSystem=strict",
            "CapabilityBoundingSet=",
            "WantedBy=multi-user.target",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_written_is_let_be_written() {
        assert!(!unit().text().unwrap().contains("ReadWritePaths"));
        let text = Unit { writes: Some(Path::new("/srv/the shop/50%$x")), ..unit() }.text().unwrap();
        assert!(text.contains("\nReadWritePaths=\"/srv/the shop/50%%$x\"\n"), "{text}");
        assert!(Unit { writes: Some(Path::new("/srv/a\"b")), ..unit() }.text().is_err());
        let own = Unit { writes: Some(Path::new("/srv/shop")), is_user: true, ..unit() }.text().unwrap();
        assert!(!own.contains("ReadWritePaths"), "nothing is closed to it: {own}");
    }

    #[test]
    fn a_user_s_unit_leaves_out_what_only_root_may() {
        let text = Unit { is_user: true, is_watched: false, config: None, ..unit() }.text().unwrap();
        for line in ["DynamicUser", "CapabilityBoundingSet", "WatchdogSec", "ProtectSystem", "--config"] {
            assert!(!text.contains(line), "{line} is in\n{text}");
        }
        assert!(text.contains("NoNewPrivileges=yes") && text.contains("WantedBy=default.target"), "{text}");
        assert!(Unit { config: Some(Path::new("/a\nb")), ..unit() }.text().is_err());
    }
}
