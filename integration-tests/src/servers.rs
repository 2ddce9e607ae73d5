//! The servers: one stack that all tests of this process share, and stacks of a test's own, each with a pool of databases.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use auditstream_stack::{Options, Stack};

use crate::{build, tls};

/// Databases of one stack, more than tests of one process.
const DATABASES: usize = 192;

/// Tests that need the machine for themselves exclude all others.
static MACHINE: RwLock<()> = RwLock::new(());

/// A test's turn on the machine, held until the test is over.
#[expect(dead_code, reason = "the guards are held for their drop")]
#[derive(Debug)]
pub(crate) enum Turn {
    Alone(RwLockWriteGuard<'static, ()>),
    Beside(RwLockReadGuard<'static, ()>),
}

impl Turn {
    pub(crate) fn wait(alone: bool) -> Self {
        if alone {
            Self::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Self::Beside(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// Shared servers, or a test's own.
#[derive(Debug)]
pub(crate) enum Servers {
    Shared(&'static Stack),
    Own(Box<Stack>),
}

impl Servers {
    pub(crate) fn shared() -> Self {
        static SHARED: OnceLock<Stack> = OnceLock::new();
        Self::Shared(SHARED.get_or_init(|| start("shared", tls::with_listeners)))
    }

    pub(crate) fn own(name: &str) -> Self {
        Self::Own(Box::new(start(name, |options| options)))
    }

    pub(crate) fn stack(&self) -> &Stack {
        match self {
            Self::Shared(stack) => stack,
            Self::Own(stack) => stack,
        }
    }
}

fn start(name: &str, with: impl FnOnce(Options) -> Options) -> Stack {
    // Builds the supervisor's executable too.
    build::auditstream();
    let name = format!("test-{name}-{}", std::process::id());
    let stack =
        Stack::start(with(Options::named(name))).unwrap_or_else(|error| panic!("the servers do not start: {error}"));
    grant_databases(&stack);
    stack
}

/// The users file of a stack. Dropped, it is as it was.
#[derive(Debug)]
pub struct Users<'a> {
    stack: &'a Stack,
    original: String,
}

impl<'a> Users<'a> {
    pub(crate) fn new(stack: &'a Stack) -> Self {
        let original = std::fs::read_to_string(stack.dir().join("users.xml")).expect("the stack has a users file");
        Self { stack, original }
    }

    /// Makes the file what `change` makes of the original, and starts ClickHouse again, which reads it only then.
    pub fn set(&self, change: impl Fn(&str) -> String) {
        std::fs::write(self.stack.dir().join("users.xml"), change(&self.original)).expect("it can be written");
        restart(self.stack);
    }
}

impl Drop for Users<'_> {
    fn drop(&mut self) {
        self.set(str::to_owned);
    }
}

fn restart(stack: &Stack) {
    let restarted = stack.clickhouse().stop().and_then(|()| stack.clickhouse().start());
    restarted.unwrap_or_else(|error| panic!("ClickHouse does not start again: {error}"));
}

/// The name of a database that no test of this process had yet.
pub(crate) fn free_database() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < DATABASES, "more than {DATABASES} tests in one process: raise the number");
    database(number)
}

fn database(number: usize) -> String {
    format!("audit_t{number:03}")
}

/// The roles' rights are those of the database `audit`, in the users file of the stack. Every database of the pool gets the same ones. ClickHouse is
/// started again because it reads the file only then.
fn grant_databases(stack: &Stack) {
    let file = stack.dir().join("users.xml");
    let users = std::fs::read_to_string(&file).expect("the stack has a users file");
    std::fs::write(&file, for_databases(&users, 0..DATABASES)).expect("the users file can be written");
    restart(stack);
}

/// `users` with what it says of the database `audit`, rights and filters, said of the pool's databases `numbers` too.
pub(crate) fn for_databases(users: &str, numbers: std::ops::Range<usize>) -> String {
    let mut all = String::new();
    let (mut grants, mut filters) = (0, 0);
    for line in users.lines() {
        all.push_str(line);
        all.push('\n');
        if line.contains("<query>GRANT ") && line.contains(" ON audit.") {
            grants += 1;
            for number in numbers.clone() {
                all.push_str(&line.replace(" ON audit.", &format!(" ON {}.", database(number))));
                all.push('\n');
            }
        } else if line.trim_start().starts_with("<audit>") {
            filters += 1;
            for number in numbers.clone() {
                let name = database(number);
                let line = line.replace("<audit>", &format!("<{name}>")).replace("</audit>", &format!("</{name}>"));
                all.push_str(&line);
                all.push('\n');
            }
        }
    }
    assert!(grants > 0 && filters > 0, "no right, or no filter, in the users file speaks of the database audit");
    all
}
