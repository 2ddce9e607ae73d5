//! What can go wrong: installing, and starting or controlling a stack.

use std::io;
use std::path::{Path, PathBuf};

/// Installing failed. Display says what to do where a person can do something.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// System packages are missing and this user may not install them.
    #[error("missing: {missing}. This user may not install packages; run this once and try again:\n\n    {command}\n")]
    Packages {
        /// Names of what is missing.
        missing: String,
        /// The exact command line that would install it.
        command: String,
    },
    /// A program that the step needs is not on PATH.
    #[error("the program `{0}` is not on PATH")]
    Program(String),
    /// A command ended with an error; the end of its output is in the message.
    #[error("{what} failed ({status}); the end of its output:\n{output}")]
    Command {
        /// The step.
        what: String,
        /// Its exit status.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// A download is not what was asked for.
    #[error("{what}: expected {expected}, found {found}")]
    Mismatch {
        /// The file or value that was checked.
        what: String,
        /// The value it must have.
        expected: String,
        /// The value it has.
        found: String,
    },
    /// The file system refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A server that had to run during the installation did not.
    #[error("a server did not run during the installation")]
    Server(#[from] Box<StackError>),
}

/// Starting or controlling a stack failed.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// What the stack needs is not installed.
    #[error("the servers could not be installed")]
    Install(#[from] InstallError),
    /// A stack of that name is already up.
    #[error("a stack named `{0}` is already up")]
    InUse(String),
    /// No stack of that name is up.
    #[error("no stack named `{0}` is up")]
    NotUp(String),
    /// A name that cannot be a folder's name.
    #[error("`{0}` is no name for a stack: use 1 to 64 letters, digits, `-`, `_` or `.`, the first a letter or digit")]
    Name(String),
    /// The given folder holds something that is not a stack's.
    #[error("the folder {0} exists and holds no stack; it is left alone")]
    ForeignFolder(PathBuf),
    /// No executable was found that can supervise the servers.
    #[error(
        "no executable can supervise the servers: build it with `cargo build --release -p auditstream-stack --bins`, \
         or set AUDITSTREAM_STACK_EXE, or call auditstream_stack::hook() first in main"
    )]
    NoExecutable,
    /// The supervisor reports a failure.
    #[error("{0}")]
    Failed(String),
    /// The supervisor is gone or does not speak this version's protocol.
    #[error("the stack's supervisor {0}")]
    Supervisor(String),
    /// The file system or the process table refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Adds what was tried to an I/O error.
pub(crate) trait Tried<T> {
    fn tried(self, what: &str, path: &Path) -> Result<T, StackError>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: &str, path: &Path) -> Result<T, StackError> {
        self.map_err(|source| StackError::Io { what: format!("{what} {}", path.display()), source })
    }
}

impl From<StackError> for InstallError {
    fn from(error: StackError) -> Self {
        match error {
            StackError::Install(error) => error,
            StackError::Io { what, source } => Self::Io { what, source },
            other => Self::Server(Box::new(other)),
        }
    }
}

/// An error with its causes, for messages that cross a process border.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
