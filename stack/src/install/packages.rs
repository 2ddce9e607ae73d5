//! System packages by apt. What is there is recognised by its program or file, so nothing is asked of apt when all is there.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use super::run::Step;
use crate::error::InstallError;
use crate::progress::Progress;

/// A package, and how to see that it is there.
pub(crate) struct Package {
    name: &'static str,
    sign: Sign,
}

enum Sign {
    /// A program on PATH.
    Program(&'static str),
    /// A file, where the compiler looks for it.
    File(&'static str),
    /// A PostgreSQL server of any version, where Debian puts them.
    Postgres,
    /// Python's module that fills a virtual environment.
    PythonVenv,
}

const fn program(name: &'static str, program: &'static str) -> Package {
    Package { name, sign: Sign::Program(program) }
}

/// To run the servers.
pub(crate) const RUN: &[Package] = &[program("default-jre-headless", "java")];

/// To download them.
pub(crate) const DOWNLOAD: &[Package] = &[program("maven", "mvn"), program("npm", "npm"), program("tar", "tar")];

/// To download the schema registry.
pub(crate) const MAVEN: &[Package] = &[program("maven", "mvn"), program("tar", "tar")];
/// To download the Java that it needs.
pub(crate) const PYTHON: &[Package] =
    &[program("python3", "python3"), Package { name: "python3-venv", sign: Sign::PythonVenv }];

/// To compile the Java client of the tests.
pub(crate) const JAVA_COMPILER: &[Package] = &[program("default-jdk-headless", "javac")];

/// To count instructions.
pub(crate) const VALGRIND: &[Package] = &[program("valgrind", "valgrind")];

/// A database server for the tests of the outbox.
pub(crate) const POSTGRES: &[Package] = &[Package { name: "postgresql", sign: Sign::Postgres }];
pub(crate) const MARIADB: &[Package] = &[
    Package { name: "mariadb-server-core", sign: Sign::File("/usr/sbin/mariadbd") },
    program("mariadb-client-core", "my_print_defaults"),
];

/// To build, run and test the whole project; `maven` and `npm` are asked for only when something has to be downloaded.
pub(crate) const PROJECT: &[Package] = &[
    program("default-jre-headless", "java"),
    program("kcat", "kcat"),
    program("curl", "curl"),
    program("cmake", "cmake"),
    program("g++", "g++"),
    program("make", "make"),
    program("pkg-config", "pkg-config"),
    Package { name: "libssl-dev", sign: Sign::File("/usr/include/openssl/ssl.h") },
    program("perl", "perl"),
    program("git", "git"),
    program("python3", "python3"),
    Package { name: "python3-venv", sign: Sign::PythonVenv },
];

/// The first executable of that name on PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    which_in(name, &env::var_os("PATH")?)
}

fn which_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    env::split_paths(path).map(|dir| dir.join(name)).find(|path| executable(path))
}

impl Package {
    fn there(&self) -> bool {
        match self.sign {
            Sign::Program(name) => which(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Postgres => postgres_programs().is_some(),
            Sign::PythonVenv => python_venv(),
        }
    }
}

/// The folder of the newest PostgreSQL server's programs.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let with_number = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path()));
    let mut found: Vec<_> =
        versions.filter_map(with_number).filter(|(_, path)| path.join("bin/initdb").is_file()).collect();
    found.sort();
    found.pop().map(|(_, path)| path.join("bin"))
}

/// Debian splits `ensurepip` off; a Python from elsewhere (pyenv, a container's own) has it.
fn python_venv() -> bool {
    let Some(python) = which("python3") else { return false };
    if !python.starts_with("/usr/bin") {
        return true;
    }
    let entries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3."))
        .any(|entry| entry.path().join("ensurepip/__init__.py").exists())
}

/// Installs those of the packages that are missing; all lists at once, so that a person is asked at most once.
pub(crate) fn ensure(lists: &[&[Package]], progress: &dyn Progress) -> Result<(), InstallError> {
    let packages = || lists.iter().copied().flatten();
    let missing = || {
        let mut names: Vec<&str> = packages().filter(|package| !package.there()).map(|package| package.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    if missing().is_empty() {
        return Ok(());
    }
    // Of two at once apt lets only one work, and the other one fails.
    let _turn = super::turn(&super::cache_dir()?, progress)?;
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let command = format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {names}");
    let refused = || InstallError::Packages { missing: names.clone(), command: command.clone() };
    if which("apt-get").is_none() {
        return Err(refused());
    }
    let prefix: &[&str] = if Uid::effective().is_root() {
        &[]
    } else if may_sudo() {
        &["sudo", "-n"]
    } else {
        return Err(refused());
    };
    let log = env::temp_dir().join(format!("auditstream-apt-{}.log", std::process::id()));
    let result = apt(prefix, &missing, &log, progress);
    let _ = fs::remove_file(&log);
    result?;
    match packages().find(|package| !package.there()) {
        Some(package) => Err(InstallError::Program(format!("{} (although apt has installed it)", package.name))),
        None => Ok(()),
    }
}

fn may_sudo() -> bool {
    let mut command = Command::new("sudo");
    command.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// apt is not bound to our life: killed half way it would leave the package database locked and torn.
fn apt(prefix: &[&str], missing: &[&str], log: &Path, progress: &dyn Progress) -> Result<(), InstallError> {
    let command = |args: &[&str]| {
        let mut words = prefix.to_vec();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
        words.extend(args);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    };
    let step = |what| Step { what, grows: None, total: None, log };
    step("refresh the package list (apt-get update)").run(&mut command(&["update"]), progress)?;
    let what = format!("install {} (apt-get install)", missing.join(", "));
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(missing);
    step(&what).run(&mut command(&args), progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_only() {
        assert!(which_in("sh", OsStr::new("/nowhere:/bin:/usr/bin")).is_some());
        assert!(which_in("sh", OsStr::new("/nowhere")).is_none());
        assert!(which_in("passwd", OsStr::new("/etc")).is_none(), "not executable");
    }
}
