//! `auditstream schema check`: the gate before a schema is released.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use auditstream_schemas::gate::{self, AUDIT_EVENT, AUDIT_EVENT_VERSIONS, Carrier, Comparison, Direction, Named};
use auditstream_schemas::golden::GOLDEN_FILES;
use auditstream_schemas::registry::{Registry, RegistryError, Version};
use serde_json::{Value as Json, json};

use super::files::{self, SchemaFile};
use crate::config::Settings;
use crate::{exit, output};

/// Check that schemas may be released: every version reads what all earlier ones wrote (backward), the one before reads
/// what it writes (forward: workers are upgraded one by one), and the golden files stay what they are.
///
/// Without FILE: the event's schemas of this program. A FILE of the event is compared with those, with the subject
/// TOPIC-value of the registry and with the golden files; any other with --subject, with --against, and with the earlier
/// versions among the files (order.v1.avsc before order.v2.avsc). The registry is asked when schema.registry_url is set.
///
/// Of a schema that is not the event's, custom fields are written, which travel as JSON text: there Avro's verdict is not
/// enough. What changes the text is refused too: a logical type that comes or goes, bytes that become string, a field
/// renamed by an alias, a union of more than one type beside null.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream schema check --offline
  auditstream schema check schemas/avro
  auditstream schema check order.avsc --subject order-details
  git show HEAD:order.avsc > /tmp/old.avsc &&
    auditstream schema check --offline order.avsc --against /tmp/old.avsc

Exit codes: 0 all may be released, 1 one may not or the registry can't be asked, 2 the command
line or the configuration is wrong.")]
pub(crate) struct Args {
    /// Schema files, or folders of them.
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,

    /// Earlier versions, oldest first, to compare each FILE with.
    #[arg(long, value_name = "FILE", requires = "paths")]
    against: Vec<PathBuf>,

    /// Subject whose registered versions each FILE is compared with; default: TOPIC-value for the event's.
    #[arg(long, value_name = "NAME", conflicts_with = "offline")]
    subject: Option<String>,

    /// Ask no registry, and read no configuration.
    #[arg(long, conflicts_with = "registry")]
    offline: bool,

    /// Fail unless a registry is configured and answers.
    #[arg(long)]
    registry: bool,

    /// Let earlier versions be unable to read it: every worker is upgraded before the first producer.
    #[arg(long)]
    backward_only: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn offline(&self) -> bool {
        self.offline
    }
}

/// What was found of one schema.
struct Checked {
    name: String,
    comparisons: Vec<Comparison>,
    /// What is wrong beside compatibility.
    faults: Vec<String>,
    /// What was not looked at, and why.
    notes: Vec<String>,
}

impl Checked {
    fn is_fine(&self) -> bool {
        self.faults.is_empty() && self.comparisons.iter().all(|comparison| comparison.problems.is_empty())
    }
}

pub(super) fn run(args: &Args, settings: Option<&Settings>) -> anyhow::Result<u8> {
    let registry = settings.and_then(|settings| settings.registry.as_ref());
    if args.registry && registry.is_none() {
        output::complain("error: --registry asks for a schema registry, and schema.registry_url is not set");
        return Ok(exit::USAGE);
    }
    if let (Some(subject), None) = (&args.subject, registry) {
        output::complain(&format!(
            "error: --subject {subject} asks for a schema registry, and schema.registry_url is not set"
        ));
        return Ok(exit::USAGE);
    }
    let files = if args.paths.is_empty() {
        let own = AUDIT_EVENT_VERSIONS.iter();
        own.map(|(name, json)| SchemaFile { name: (*name).to_owned(), json: (*json).to_owned() }).collect()
    } else {
        files::read_all(&args.paths)?
    };
    let against = args.against.iter().map(|path| {
        let SchemaFile { name, json } = SchemaFile::read(path)?;
        Ok(Named { name, json })
    });
    let against: Vec<Named> = against.collect::<anyhow::Result<_>>()?;
    let mut asked = Asked {
        registry: registry.map(Registry::new).transpose().context("the schema registry's settings")?,
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        topic: settings.map(|settings| settings.kafka.topic.clone()).unwrap_or_default(),
        subject: args.subject.clone(),
    };
    let mut checked = Vec::new();
    for (index, file) in files.iter().enumerate() {
        checked.push(check(file, &files[..index], &against, &mut asked)?);
    }
    if args.backward_only {
        for checked in &mut checked {
            checked.comparisons.retain(|comparison| comparison.direction == Direction::Backward);
        }
    }
    if args.json {
        output::line(&to_json(&checked).to_string())?;
    } else {
        checked.iter().try_for_each(print)?;
    }
    Ok(if checked.iter().all(Checked::is_fine) { exit::OK } else { exit::FAILURE })
}

/// Checks one file; `before` are the files in front of it.
fn check(file: &SchemaFile, before: &[SchemaFile], against: &[Named], asked: &mut Asked) -> anyhow::Result<Checked> {
    let mut checked =
        Checked { name: file.name.clone(), comparisons: Vec::new(), faults: Vec::new(), notes: Vec::new() };
    let record = match gate::record_name(&file.json) {
        Ok(Some(record)) => record,
        Ok(None) => {
            checked.faults.push("it is no record".to_owned());
            return Ok(checked);
        }
        Err(error) => {
            checked.faults.push(full(&error));
            return Ok(checked);
        }
    };
    let is_event = record == AUDIT_EVENT;
    let mut earlier: Vec<Named> = Vec::new();
    if is_event {
        released(file, &mut earlier, &mut checked);
    }
    if let Some((stem, number)) = file.version() {
        let siblings = before.iter().filter(|other| other.version().is_some_and(|(s, n)| s == stem && n < number));
        // Of a version that this program has, the released text counts.
        let siblings = siblings.filter(|other| earlier.iter().all(|known| known.name != other.name));
        let siblings: Vec<Named> =
            siblings.map(|other| Named { name: other.name.clone(), json: other.json.clone() }).collect();
        earlier.extend(siblings);
    }
    earlier.extend(against.iter().cloned());
    // Any other record is of custom fields.
    let carrier = if is_event { Carrier::Avro } else { Carrier::Json };
    compare(&file.json, &earlier, carrier, &mut checked);
    if is_event {
        for golden in GOLDEN_FILES {
            if let Err(reason) = gate::check_golden(&file.json, golden) {
                checked.faults.push(format!("golden file {}: {reason}", golden.name));
            }
        }
    }
    let registered = asked.registered(is_event, &mut checked)?;
    compare(&file.json, &registered, carrier, &mut checked);
    Ok(checked)
}

/// The event's versions of this program that are earlier than the file. A file of a released version must be that version.
fn released(file: &SchemaFile, earlier: &mut Vec<Named>, checked: &mut Checked) {
    // Any other name is not a version of the event's, whatever its number: it comes after all of them.
    let own = file.version().filter(|(stem, number)| *stem == "audit_event" && *number > 0);
    let number = own.map_or(u32::MAX, |(_, number)| number);
    for (name, json) in AUDIT_EVENT_VERSIONS {
        let known = files::version(name).map_or(0, |(_, number)| number);
        if known < number {
            earlier.push(Named { name: (*name).to_owned(), json: (*json).to_owned() });
        }
        if *name == file.name && !gate::is_same(json, &file.json).unwrap_or(false) {
            checked.faults.push(format!(
                "{name} was released with other fields: what was written with it could not be told from what is. \
                 Undo the change and make the next version: auditstream schema new-version"
            ));
            earlier.push(Named { name: format!("{name} as released"), json: (*json).to_owned() });
        }
    }
}

fn compare(json: &str, earlier: &[Named], carrier: Carrier, checked: &mut Checked) {
    match gate::compare_with(json, earlier, carrier) {
        Ok(comparisons) => checked.comparisons.extend(comparisons),
        Err((at, error)) => {
            let at = at.map(|name| format!("{name}: ")).unwrap_or_default();
            checked.faults.push(format!("{at}{}", full(&error)));
        }
    }
}

/// An error with its causes, in one line.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The registry, if one is asked.
struct Asked {
    registry: Option<Registry>,
    runtime: tokio::runtime::Runtime,
    topic: String,
    subject: Option<String>,
}

impl Asked {
    /// All registered versions to compare with, oldest first.
    fn registered(&mut self, is_event: bool, checked: &mut Checked) -> anyhow::Result<Vec<Named>> {
        let Some(registry) = &self.registry else {
            checked.notes.push("no registry was asked".to_owned());
            return Ok(Vec::new());
        };
        let subject = match &self.subject {
            Some(subject) => subject.clone(),
            None if is_event => format!("{}-value", self.topic),
            None => {
                checked.notes.push("no registry was asked: name the subject with --subject".to_owned());
                return Ok(Vec::new());
            }
        };
        let all = async {
            let numbers = match registry.versions(&subject).await {
                Err(RegistryError::NotFound { .. }) => return Ok(None),
                numbers => numbers?,
            };
            let mut versions = Vec::new();
            for number in numbers {
                let found = registry.by_version(&subject, Version::Number(number)).await?;
                versions.push(Named { name: format!("{subject} version {number}"), json: found.schema.clone() });
            }
            Ok(Some(versions))
        };
        let versions: Result<Option<Vec<Named>>, RegistryError> = self.runtime.block_on(all);
        match versions.map_err(|error| anyhow!(error).context(format!("subject {subject} can't be compared with")))? {
            Some(versions) => Ok(versions),
            None => {
                checked.notes.push(format!("subject {subject} is not registered yet"));
                Ok(Vec::new())
            }
        }
    }
}

fn to_json(checked: &[Checked]) -> Json {
    let comparison = |Comparison { against, direction, problems }: &Comparison| {
        let problems: Vec<Json> = problems
            .iter()
            .map(|problem| json!({ "path": problem.path, "rule": problem.rule.as_str(), "message": problem.message }))
            .collect();
        json!({ "against": against, "direction": direction.as_str(), "problems": problems })
    };
    let schemas: Vec<Json> = checked
        .iter()
        .map(|checked| {
            json!({
                "schema": checked.name,
                "compatible": checked.is_fine(),
                "comparisons": checked.comparisons.iter().map(comparison).collect::<Vec<_>>(),
                "faults": checked.faults,
                "notes": checked.notes,
            })
        })
        .collect();
    json!({ "compatible": checked.iter().all(Checked::is_fine), "schemas": schemas })
}

fn print(checked: &Checked) -> anyhow::Result<()> {
    let Checked { name, comparisons, faults, notes } = checked;
    output::line(&format!("{name}: {}", if checked.is_fine() { "may be released" } else { "must not be released" }))?;
    for fault in faults {
        output::line(&format!("  fault: {fault}"))?;
    }
    for Comparison { against, direction, problems } in comparisons {
        let says = match (direction, problems.is_empty()) {
            (Direction::Backward, true) => format!("backward: it reads {against}"),
            (Direction::Backward, false) => format!("backward: it can't read all of {against}"),
            (Direction::Forward, true) => format!("forward: {against} reads it"),
            (Direction::Forward, false) => format!("forward: {against} can't read all of it"),
        };
        output::line(&format!("  {says}"))?;
        for problem in problems {
            output::line(&format!("    {problem}"))?;
        }
    }
    for note in notes {
        output::line(&format!("  note: {note}"))?;
    }
    Ok(())
}
