//! `auditstream schema custom-view`: a service's own fields as typed columns.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use auditstream_schemas::gate;
use auditstream_schemas::registry::{Registry, Version};
use auditstream_store::{Store, custom_view};

use super::files::SchemaFile;
use crate::config::Settings;
use crate::{exit, output};

/// Print, or create, the view that shows the custom fields of a subject as typed columns, such as `details.amount`.
///
/// The view holds all columns of events and one for each field of the subject's record; it reads `details` when it is
/// queried, so it is there for events of the past too. It runs with the rights of who queries it.
///
/// Run printed SQL only where nothing but a view has the name: ClickHouse drops a table for CREATE OR REPLACE VIEW.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream schema custom-view order-details
  auditstream schema custom-view order-details --file order.avsc --view orders
  auditstream schema custom-view order-details --create

Exit codes: 0 printed or created, 1 not possible, 2 the command line or the configuration is
wrong.")]
pub(crate) struct Args {
    /// Subject that the events' details are marked with.
    subject: String,

    /// The record's schema; default: the subject's newest version, from the registry.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Name of the view; default: events_ and the record's name.
    #[arg(long, value_name = "NAME")]
    view: Option<String>,

    /// Create the view, or replace it by that of another version; needs a user that may (audit_admin). What is no view of
    /// this subject is never replaced.
    #[arg(long)]
    create: bool,
}

pub(super) fn run(args: &Args, settings: &Settings) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let schema = match (&args.file, &settings.registry) {
        (Some(file), _) => SchemaFile::read(file)?.json,
        (None, Some(registry)) => {
            let registry = Registry::new(registry).context("the schema registry's settings")?;
            let found = runtime.block_on(registry.by_version(&args.subject, Version::Latest));
            found.with_context(|| format!("subject {}", args.subject))?.schema.clone()
        }
        (None, None) => {
            output::complain("error: there is no schema: name one with --file, or set schema.registry_url");
            return Ok(exit::USAGE);
        }
    };
    let name = gate::record_name(&schema)?.ok_or_else(|| anyhow!("the schema is no record"))?;
    let view = args.view.clone().unwrap_or_else(|| format!("events_{}", snake(&name)));
    let sql = custom_view(&settings.clickhouse.database, &view, &args.subject, &schema)?;
    if args.create {
        let store = Store::new(&settings.store())?;
        runtime.block_on(store.create_view(&view, &args.subject, &schema)).context("the view was not created")?;
        output::line(&format!("view {}.{view} is in place", settings.clickhouse.database))?;
    } else {
        output::line(&format!("{sql};"))?;
    }
    Ok(exit::OK)
}

/// `shop.OrderDetails` as `order_details`.
fn snake(full: &str) -> String {
    let name = full.rsplit('.').next().unwrap_or(full);
    let mut out = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 && !out.ends_with('_') {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::snake;

    #[test]
    fn a_record_names_its_view() {
        for (name, expected) in [("shop.OrderDetails", "order_details"), ("order", "order"), ("A_B", "a_b")] {
            assert_eq!(snake(name), expected);
        }
    }
}
