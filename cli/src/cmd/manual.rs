//! `auditstream completions` and `auditstream man`: written from the same definition as the help.

use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Cli;
use crate::{exit, output};

/// Print a shell's completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream completions bash > /etc/bash_completion.d/auditstream
  auditstream completions zsh > ~/.zfunc/_auditstream
  auditstream completions fish > ~/.config/fish/completions/auditstream.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Known,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual pages, one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  auditstream man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder to write to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<u8> {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "auditstream", &mut text);
    output::line(String::from_utf8_lossy(&text).trim_end())?;
    Ok(exit::OK)
}

pub(crate) fn man(args: &ManArgs) -> anyhow::Result<u8> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| format!("can't write to {}", dir.display()))?;
    let pages = std::fs::read_dir(dir)?.filter_map(Result::ok);
    let count = pages.filter(|page| page.path().extension().is_some_and(|extension| extension == "1")).count();
    output::line(&format!("{count} manual pages in {}", dir.display()))?;
    Ok(exit::OK)
}
