//! `auditstream analyst`: accounts for people who ask, each for the tenants that they answer for.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use auditstream_store::{Analyst, PasswordHash, Secret, Store, Target, Tenants};
use clap::Subcommand;

use crate::audit::{self, Deed, INSTALLATION};
use crate::config::Settings;
use crate::confirm::Consent;
use crate::{exit, output};

/// Work with analysts: accounts in ClickHouse that read, within bounds, the rows of their tenants and nothing else.
///
/// Both `add` and `remove` are audited, as audit.analyst_add and audit.analyst_remove: without that event nothing is done. Needs a user that may make users, roles and row policies (audit_admin). The roles must be there: `auditstream migrate` makes them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Make an account that reads the rows of its tenants.
///
/// Events are a tenant's by tenant_id, dead letters by their key. The ledger speaks of all tenants' batches at once: only --all-tenants shows it.
/// The password is never shown, and only its SHA-256 leaves this program.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream analyst add jo --tenant acme --ask-password
  auditstream analyst add jo --tenant acme --tenant globex \\
    --new-password-file ./jo.password
  auditstream analyst add jo --tenant initech --existing
  auditstream analyst add jo --tenant acme --password-file - --print
  auditstream analyst add jo --tenant acme --password-file p --users-file \\
    > /etc/clickhouse-server/users.d/jo.xml")]
struct AddArgs {
    /// The account's name: a letter, then letters, digits, `_` or `-`.
    name: String,

    /// A tenant whose rows it sees; may be given more than once.
    #[arg(long = "tenant", value_name = "TENANT", required_unless_present = "all_tenants")]
    tenants: Vec<String>,

    /// It sees every tenant's rows, and the ledger.
    #[arg(long, conflicts_with = "tenants")]
    all_tenants: bool,

    #[command(flatten)]
    password: PasswordArgs,

    /// Only print the SQL; nothing is connected.
    #[arg(long, conflicts_with_all = ["users_file", "dry_run"])]
    print: bool,

    /// Only print the account as a file for users.d, for a server that takes its users from files; nothing is connected.
    #[arg(long, conflicts_with_all = ["existing", "dry_run", "cluster"])]
    users_file: bool,

    /// Look at the server and say what would be done.
    #[arg(long)]
    dry_run: bool,

    /// Make it on every server of this cluster; default: the one that the table of events is on.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

/// Where the password comes from: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PasswordArgs {
    /// The password is the first line of this file; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Ask for the password on the terminal.
    #[arg(long)]
    ask_password: bool,

    /// Make a password of 160 random bits and write it to this file, which must not be there yet; only its owner may read it.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,

    /// The account is there: give it further tenants and leave its password.
    #[arg(long)]
    existing: bool,
}

/// List the accounts, and whose rows each sees.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream analyst list
  auditstream analyst list --json | jq '.[] | select(.all_tenants)'")]
struct ListArgs {
    /// Print one JSON list.
    #[arg(long)]
    json: bool,
}

/// Remove an account. Users that are no analysts are left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream analyst remove jo --dry-run
  auditstream analyst remove jo --yes")]
struct RemoveArgs {
    /// The account.
    name: String,

    #[command(flatten)]
    consent: Consent,

    /// Remove it from every server of this cluster; default: the one that the table of events is on.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Command::Add(args) => add(args, settings).await,
            Command::List(args) => list(args, settings).await,
            Command::Remove(args) => remove(args, settings).await,
        }
    })
}

async fn add(args: &AddArgs, settings: &Settings) -> anyhow::Result<u8> {
    let tenants = if args.all_tenants { Tenants::All } else { Tenants::Only(args.tenants.clone()) };
    let whose = whose(&tenants);
    let analyst = Analyst::new(&args.name, tenants)?;
    let target = Target { database: &settings.clickhouse.database, cluster: args.cluster.as_deref() };
    if args.dry_run {
        let there = Store::new(&settings.store())?.analysts().await?.into_iter().find(|there| there.name == args.name);
        match (&there, args.password.existing) {
            (Some(there), true) => {
                output::line(&format!("{} sees {}; it would see {whose} too", args.name, self::whose(&there.tenants)))?;
            }
            (Some(_), false) => bail!("there is an analyst {} already; --existing gives it further tenants", args.name),
            (None, true) => bail!("there is no analyst {}", args.name),
            (None, false) => output::line(&format!("{} would be made; it would see {whose}", args.name))?,
        }
        return Ok(exit::OK);
    }
    let password = password(&args.password)?;
    if args.users_file {
        let hash = PasswordHash::plain(password.as_ref().context("an account in a file needs a password")?)?;
        output::line(analyst.users_file(target.database, &hash).trim_end())?;
        return Ok(exit::OK);
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).context("no random bytes")?;
    let hash = password.as_ref().map(|password| PasswordHash::salted(password, salt)).transpose()?;
    if args.print {
        for statement in analyst.sql(&target, hash.as_ref()) {
            output::line(&format!("{statement};"))?;
        }
        return Ok(exit::OK);
    }
    let store = Store::new(&settings.store())?;
    let live = store.cluster_of_events().await?;
    let target = Target { cluster: target.cluster.or(live.as_deref()), ..target };
    let work = async || Ok(store.add_analyst(&analyst, &target, hash.as_ref()).await?);
    audit::around(settings, deed("audit.analyst_add", &args.name, &whose), work).await?;
    output::line(&format!("{} sees {whose}", args.name))?;
    Ok(exit::OK)
}

async fn list(args: &ListArgs, settings: &Settings) -> anyhow::Result<u8> {
    let analysts = Store::new(&settings.store())?.analysts().await?;
    if args.json {
        let each = analysts.iter().map(|analyst| {
            let tenants = match &analyst.tenants {
                Tenants::All => &[][..],
                Tenants::Only(tenants) => tenants,
            };
            serde_json::json!({
                "name": analyst.name, "all_tenants": analyst.tenants == Tenants::All, "tenants": tenants
            })
        });
        output::line(&serde_json::Value::from(each.collect::<Vec<_>>()).to_string())?;
        return Ok(exit::OK);
    }
    if analysts.is_empty() {
        output::line("no analysts were made by SQL; those in a users file are seen there")?;
    }
    for analyst in &analysts {
        output::line(&format!("{:<24} {}", analyst.name, whose(&analyst.tenants)))?;
    }
    Ok(exit::OK)
}

async fn remove(args: &RemoveArgs, settings: &Settings) -> anyhow::Result<u8> {
    let store = Store::new(&settings.store())?;
    let target = Target { database: &settings.clickhouse.database, cluster: args.cluster.as_deref() };
    let found = store.analysts().await?.into_iter().find(|there| there.name == args.name);
    let whose = whose(
        &found.with_context(|| format!("{} is no analyst that was made by SQL; nothing was done", args.name))?.tenants,
    );
    if args.consent.dry_run {
        output::line(&format!("{} would be removed; it sees {whose}", args.name))?;
        return Ok(exit::OK);
    }
    if !args.consent.given(&format!("Remove {}, who sees {whose}?", args.name))? {
        return Ok(exit::FAILURE);
    }
    let live = store.cluster_of_events().await?;
    let target = Target { cluster: target.cluster.or(live.as_deref()), ..target };
    let work = async || Ok(store.remove_analyst(&args.name, &target).await?);
    audit::around(settings, deed("audit.analyst_remove", &args.name, &whose), work).await?;
    output::line(&format!("{} is removed", args.name))?;
    Ok(exit::OK)
}

fn deed(action: &'static str, name: &str, whose: &str) -> Deed {
    Deed {
        action,
        tenant: INSTALLATION.to_owned(),
        entity_type: "analyst",
        entity_id: name.to_owned(),
        details: serde_json::json!({ "sees": whose }),
    }
}

fn whose(tenants: &Tenants) -> String {
    match tenants {
        Tenants::All => "every tenant".to_owned(),
        Tenants::Only(tenants) if tenants.is_empty() => "nothing".to_owned(),
        Tenants::Only(tenants) => tenants.join(", "),
    }
}

fn password(args: &PasswordArgs) -> anyhow::Result<Option<Secret>> {
    if args.existing {
        return Ok(None);
    }
    if args.ask_password {
        return ask().map(Some);
    }
    match (&args.password_file, &args.new_password_file) {
        (Some(file), _) => first_line(file).map(Some),
        (None, Some(file)) => make(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn first_line(file: &Path) -> anyhow::Result<Secret> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.with_context(|| format!("can't read the password from {}", file.display()))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

/// Hexadecimal digits: any client takes them as they are.
fn make(file: &Path) -> anyhow::Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).context("no random bytes")?;
    let password: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut options = std::fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut file| writeln!(file, "{password}").and_then(|()| file.sync_all()));
    written.with_context(|| format!("can't write the password to {}", file.display()))?;
    Ok(Secret::new(password))
}

/// Asks twice, without showing what is typed.
fn ask() -> anyhow::Result<Secret> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("--ask-password needs a terminal; --password-file - reads the password from standard input");
    }
    let shown = tcgetattr(&stdin).context("the terminal can't be asked")?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).context("the terminal can't hide what is typed")?;
    let mut lines = [String::new(), String::new()];
    let mut result = Ok(());
    for (line, prompt) in lines.iter_mut().zip(["Password: ", "Once more: "]) {
        let _ = write!(std::io::stderr(), "{prompt}");
        result = result.and_then(|()| stdin.read_line(line).map(|_| ()));
        output::complain("");
    }
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &shown).context("the terminal can't be set back")?;
    result.context("can't read the password")?;
    let [first, second] = lines.map(|line| line.trim_end_matches(['\r', '\n']).to_owned());
    if first != second {
        bail!("the two are not the same");
    }
    Ok(Secret::new(first))
}
