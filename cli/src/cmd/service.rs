//! `auditstream service`: a worker or a relay as a service of systemd, on a host without Kubernetes.

mod unit;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, bail};
use auditstream_producer::outbox;
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::audit::{self, Deed, INSTALLATION};
use crate::config::{ConfigError, Loaded, Settings};
use crate::confirm::Consent;
use crate::{exit, output};
use unit::Unit;

/// Run a worker, or a relay, as a service of systemd.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(InstallArgs),
    Uninstall(UninstallArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// A worker: `auditstream consume`.
    Worker,
    /// A relay of the outbox: `auditstream relay`.
    Relay,
}

/// Where the unit is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The service's name.
    #[arg(long, default_value = "auditstream", value_parser = name)]
    name: String,

    /// For this user's own service manager instead of the system's.
    #[arg(long)]
    user: bool,

    /// The folder of the unit; default: /etc/systemd/system, with --user ~/.config/systemd/user.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Write a systemd unit that runs auditstream with this configuration: sandboxed, bounded in memory, watched, stopped gracefully.
///
/// The configuration is checked first; --config names it, and the unit reads the same file. A unit of this name that
/// auditstream wrote is replaced. A service that needs a human (exit code 3), or whose configuration is wrong (2), is not
/// started again; after any other failure it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream --config /etc/auditstream.toml service install
  auditstream --config /etc/auditstream.toml service install relay --name audit-relay
  auditstream --config ~/auditstream.toml service install --user --dry-run")]
struct InstallArgs {
    /// What runs.
    #[arg(default_value = "worker")]
    what: What,

    #[command(flatten)]
    place: Place,

    /// Most memory; above it the service is ended and started again.
    #[arg(long, default_value = "512M", value_name = "SIZE", value_parser = size)]
    memory_max: String,

    /// The account that it runs as; default: one that systemd makes for it. It must be able to read the configuration.
    #[arg(long, value_name = "USER", conflicts_with = "user", value_parser = name)]
    run_as: Option<String>,

    /// Only print the unit.
    #[arg(long)]
    dry_run: bool,
}

/// Stop a service that `auditstream service install` made, and remove its unit.
///
/// Audited as audit.service_uninstall first, so Kafka must be there. With --dir nothing is stopped, only a file goes, and
/// nothing is audited.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream service uninstall --dry-run
  auditstream service uninstall --name audit-relay --yes")]
struct UninstallArgs {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    consent: Consent,
}

fn name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_fine = !text.is_empty() && text.len() <= 100 && !text.starts_with(['-', '.']) && text.chars().all(legal);
    if is_fine { Ok(text.to_owned()) } else { Err("must be 1 to 100 letters, digits, `-`, `_` or `.`".to_owned()) }
}

fn size(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let is_fine = digits.parse::<u32>().is_ok_and(|count| count > 0) && text.len() <= digits.len() + 1;
    if is_fine { Ok(text.to_owned()) } else { Err("is no size such as 512M or 2G".to_owned()) }
}

impl Place {
    fn file(&self) -> anyhow::Result<PathBuf> {
        let folder = match (&self.dir, self.user) {
            (Some(folder), _) => folder.clone(),
            (None, false) => PathBuf::from("/etc/systemd/system"),
            (None, true) => {
                let own = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
                let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
                own.or_else(home).context("neither XDG_CONFIG_HOME nor HOME is set")?.join("systemd/user")
            }
        };
        Ok(folder.join(format!("{}.service", self.name)))
    }

    fn systemctl(&self) -> &'static str {
        if self.user { "systemctl --user" } else { "systemctl" }
    }

    /// Runs systemctl where systemd runs and looks at this folder; says what was run.
    fn tell(&self, args: &[&str]) -> anyhow::Result<()> {
        if self.dir.is_some() || !Path::new("/run/systemd/system").exists() {
            return Ok(());
        }
        let mut process = Process::new("systemctl");
        if self.user {
            process.arg("--user");
        }
        let said = format!("{} {}", self.systemctl(), args.join(" "));
        let status = process.args(args).status().with_context(|| format!("can't run {said}"))?;
        if !status.success() {
            bail!("{said} failed: {status}");
        }
        output::line(&format!("ran {said}"))
    }
}

pub(crate) fn run(
    args: &Args,
    config: Option<&Path>,
    load: impl FnOnce() -> Result<Loaded, ConfigError>,
) -> anyhow::Result<u8> {
    match &args.command {
        Command::Install(args) => install(args, config, load),
        Command::Uninstall(args) => uninstall(args, load),
    }
}

fn install(
    args: &InstallArgs,
    config: Option<&Path>,
    load: impl FnOnce() -> Result<Loaded, ConfigError>,
) -> anyhow::Result<u8> {
    let settings = load()?.settings;
    if args.what == What::Relay {
        settings.relay()?;
    }
    // Where it is started from does not matter to a service: the default file is looked for now.
    let config = config.or_else(|| Some(Path::new("auditstream.toml")).filter(|file| file.exists()));
    let config = config.map(std::path::absolute).transpose().context("the configuration's path")?;
    let program = std::env::current_exe().context("where this program is")?;
    let (drain, probes, word) = match args.what {
        What::Worker => (settings.consumer.drain_deadline, settings.consumer.http_listen, "consume"),
        What::Relay => (settings.outbox.drain_deadline, settings.outbox.http_listen, "relay"),
    };
    let writes = match args.what {
        What::Worker => None,
        What::Relay => sqlite_folder(args, &settings)?,
    };
    let unit = Unit {
        program: &program,
        config: config.as_deref(),
        word,
        is_relay: args.what == What::Relay,
        is_user: args.place.user,
        run_as: args.run_as.as_deref(),
        memory_max: &args.memory_max,
        writes: writes.as_deref(),
        drain,
        // Where a port is chosen at the start nobody knows it.
        is_watched: probes.is_some_and(|address| address.port() != 0),
    };
    let text = unit.text()?;
    if args.dry_run {
        output::line(text.trim_end())?;
        return Ok(exit::OK);
    }
    let file = args.place.file()?;
    if file.exists() && !is_ours(&file)? {
        bail!("{} was not written by auditstream; give another --name, or remove it", file.display());
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    output::line(&format!("wrote {}", file.display()))?;
    if config.is_none() {
        output::line("it has no configuration file: every key has its default")?;
    }
    if let Some(config) = config.as_deref().filter(|_| !args.place.user && args.run_as.is_none())
        && !is_for_all(config)
    {
        let config = config.display();
        output::line(&format!(
            "note: the account that systemd makes can't read {config}; give --run-as, or let others read it"
        ))?;
    }
    if !unit.is_watched {
        output::line("no watchdog: the key http_listen has no port that is known before the start")?;
    }
    args.place.tell(&["daemon-reload"])?;
    let (systemctl, name) = (args.place.systemctl(), &args.place.name);
    output::line(&format!("next: {systemctl} enable --now {name}"))?;
    let journal = if args.place.user { "journalctl --user" } else { "journalctl" };
    output::line(&format!("then: {systemctl} status {name}; {journal} -u {name} -f"))?;
    Ok(exit::OK)
}

/// The folder that a relay of a SQLite outbox writes: SQLite makes files beside the database.
///
/// # Errors
/// The service could not write there.
fn sqlite_folder(args: &InstallArgs, settings: &Settings) -> anyhow::Result<Option<PathBuf>> {
    let Some(file) = outbox::sqlite_file(settings.outbox_url()?)? else { return Ok(None) };
    if !file.is_absolute() {
        bail!("outbox.url: the file {} must be an absolute path: a service has no folder of its own", file.display());
    }
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    if args.place.user {
        return Ok(Some(folder));
    }
    if args.run_as.is_none() {
        bail!(
            "outbox.url: {} belongs to the service that writes it, and the account that systemd makes can't; give --run-as with the account of that service",
            file.display()
        );
    }
    if let Some(private) = ["/tmp", "/var/tmp"].iter().find(|private| file.starts_with(private)) {
        bail!("outbox.url: {} lies in {private}, of which the service has its own; move it elsewhere", file.display());
    }
    if !folder.is_dir() {
        bail!("outbox.url: there is no folder {}; the service would not start", folder.display());
    }
    Ok(Some(folder))
}

/// Whether every user of this host may read the file, as far as its own mode says.
fn is_for_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o004 != 0)
}

fn is_ours(file: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(text.starts_with(unit::MARK))
}

fn uninstall(args: &UninstallArgs, load: impl FnOnce() -> Result<Loaded, ConfigError>) -> anyhow::Result<u8> {
    let file = args.place.file()?;
    if !file.exists() {
        bail!("there is no {}", file.display());
    }
    if !is_ours(&file)? {
        bail!("{} was not written by auditstream; it is left alone", file.display());
    }
    if args.consent.dry_run {
        output::line(&format!("{} would be stopped, and {} removed (dry run)", args.place.name, file.display()))?;
        return Ok(exit::OK);
    }
    if !args.consent.given(&format!("{} will be stopped, and {} removed. Go on?", args.place.name, file.display()))? {
        return Ok(exit::FAILURE);
    }
    let remove = || {
        args.place.tell(&["disable", "--now", &args.place.name])?;
        std::fs::remove_file(&file).with_context(|| format!("can't remove {}", file.display()))?;
        output::line(&format!("removed {}", file.display()))?;
        args.place.tell(&["daemon-reload"])
    };
    if args.place.dir.is_some() {
        remove()?;
        return Ok(exit::OK);
    }
    let settings = load().context("nothing was done: the audit event is written with this configuration")?.settings;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let deed = Deed {
        action: "audit.service_uninstall",
        tenant: INSTALLATION.to_owned(),
        entity_type: "service",
        entity_id: args.place.name.clone(),
        details: json!({ "host": host.trim(), "user_s_own": args.place.user }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(audit::around(&settings, deed, async || remove()))?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert!(name("audit-relay.2").is_ok());
        for wrong in ["", "../x", "-x", "a b", "a/b", ".hidden"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        for right in ["512M", "2G", "1048576"] {
            assert!(size(right).is_ok(), "{right}");
        }
        for wrong in ["", "M", "0", "2GG", "-1M", "1.5G", "2 G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
