//! The history of a git repository: each file that a commit touched is an event of that file, its author the actor.
//!
//! `git log` is asked for raw and numstat output separated by NUL, so that no name of a file or an author can be mistaken for something else.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use auditstream_schemas::{Actor, ActorKind, AuditEvent, Operation, Timestamp};

use super::{Reading, TENANT, id_of, json};

/// Hash, author's time, name and address (as `.mailmap` has them), subject; NUL in front and behind each.
const FORMAT: &str = "--format=tformat:%x00%H%x00%at%x00%aN%x00%aE%x00%s%x00";

/// Reads the newest events of the repository at `path`, `limit` at most; `progress` hears how many there are so far.
///
/// # Errors
/// git is not there, `path` is no repository, or it has no commits: a sentence for people.
pub fn read(path: &Path, limit: usize, progress: &mut dyn FnMut(usize)) -> Result<Reading, String> {
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(path).stdin(Stdio::null());
        git
    };
    let ask = |arguments: &[&str]| {
        git().arg("rev-parse").args(arguments).output().map_err(|error| format!("git can't be run ({error})"))
    };
    let folder = ask(&["--git-dir"])?;
    if !folder.status.success() {
        let said = String::from_utf8_lossy(&folder.stderr);
        return Err(format!("git says: {}", said.lines().next().unwrap_or("not a repository")));
    }
    if !ask(&["--verify", "--quiet", "HEAD"])?.status.success() {
        return Err("the repository has no commits yet".to_owned());
    }
    // A bare repository has no top level; its own folder names it.
    let top = String::from_utf8_lossy(&ask(&["--show-toplevel"])?.stdout).trim_end().to_owned();
    let top = if top.is_empty() { path } else { Path::new(&top) };
    let repository =
        top.file_name().map_or_else(|| "repository".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut child = git()
        .args([
            "-c",
            "log.showSignature=false",
            "log",
            "-z",
            "--raw",
            "--numstat",
            "--no-abbrev",
            "-M",
            "--no-color",
            "--no-ext-diff",
        ])
        .args(["--no-textconv", FORMAT])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("git can't be run ({error})"))?;
    let mut parser = Parser::new(&repository);
    if let Some(out) = child.stdout.take() {
        parser.read(BufReader::with_capacity(1 << 16, out), limit, progress);
    }
    // Past the limit git may still be at work. Its end is not of interest then.
    let _ = child.kill();
    let _ = child.wait();
    Ok(parser.finish(limit))
}

/// One file as a commit left it.
#[derive(Debug)]
struct Touched {
    status: char,
    old_path: Option<String>,
    path: String,
    /// Lines added and removed; `None` for a binary file.
    lines: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Commit {
    hash: String,
    time: String,
    name: String,
    email: String,
    subject: String,
}

/// Reads the words of `git log`.
#[derive(Debug)]
struct Parser {
    repository: String,
    commit: Commit,
    touched: Vec<Touched>,
    reading: Reading,
}

impl Parser {
    fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            commit: Commit::default(),
            touched: Vec::new(),
            reading: Reading::default(),
        }
    }

    /// Newest first, as git tells it, until the end or the limit.
    fn read(&mut self, mut input: impl BufRead, limit: usize, progress: &mut dyn FnMut(usize)) {
        while let Some(word) = take_word(&mut input) {
            // git ends a commit's header with a line feed before the files.
            let word = word.trim_start_matches('\n');
            if word.is_empty() {
                continue;
            }
            if let Some(raw) = word.strip_prefix(':') {
                self.raw(raw, &mut input);
            } else if let Some((added, rest)) = word.split_once('\t') {
                self.counts(added, rest, &mut input);
            } else if word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                self.close();
                progress(self.reading.events.len());
                if self.reading.events.len() >= limit {
                    self.reading.cut = true;
                    return;
                }
                let mut next = || take_word(&mut input).unwrap_or_default();
                self.commit =
                    Commit { hash: word.to_owned(), time: next(), name: next(), email: next(), subject: next() };
            } else {
                self.reading.unreadable += 1;
            }
        }
        self.close();
    }

    /// `100644 100644 HASH HASH R100`, then one path, or two of a rename or copy.
    fn raw(&mut self, raw: &str, input: &mut impl BufRead) {
        let status = raw.rsplit(' ').next().and_then(|word| word.chars().next()).unwrap_or('?');
        let first = take_word(input).unwrap_or_default();
        let (old_path, path) = if matches!(status, 'R' | 'C') {
            (Some(first), take_word(input).unwrap_or_default())
        } else {
            (None, first)
        };
        self.touched.push(Touched { status, old_path, path, lines: None });
    }

    /// `12<tab>3<tab>path`, or with an empty path and then two words of a rename; `-` instead of numbers for a binary file.
    fn counts(&mut self, added: &str, rest: &str, input: &mut impl BufRead) {
        let Some((removed, path)) = rest.split_once('\t') else {
            self.reading.unreadable += 1;
            return;
        };
        let path = if path.is_empty() {
            let _old = take_word(input);
            take_word(input).unwrap_or_default()
        } else {
            path.to_owned()
        };
        let lines = added.parse().ok().zip(removed.parse().ok());
        if let Some(touched) = self.touched.iter_mut().find(|touched| touched.path == path) {
            touched.lines = lines;
        }
    }

    /// Makes events of the commit that ends here.
    fn close(&mut self) {
        for touched in std::mem::take(&mut self.touched) {
            match event(&self.repository, &self.commit, &touched) {
                Some(event) => self.reading.events.push(event),
                None => self.reading.unreadable += 1,
            }
        }
    }

    fn finish(mut self, limit: usize) -> Reading {
        self.reading.events.truncate(limit);
        self.reading.events.reverse();
        self.reading
    }
}

/// Up to the next NUL; `None` at the end. What is no UTF-8 is replaced: names are for people.
fn take_word(input: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    // A path may have 4 KiB and a subject more; nothing sensible has a MiB.
    let read = input.by_ref().take(1 << 20).read_until(0, &mut bytes).ok()?;
    if read == 0 {
        return None;
    }
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// `None` when the file or the time can't be an event: a path over the limit for ids, a time that no clock shows.
fn event(repository: &str, commit: &Commit, touched: &Touched) -> Option<AuditEvent> {
    let (action, operation) = match touched.status {
        'A' | 'C' => ("file.create", Operation::Create),
        'D' => ("file.delete", Operation::Delete),
        'R' => ("file.rename", Operation::Update),
        _ => ("file.update", Operation::Update),
    };
    let seconds: i64 = commit.time.parse().ok()?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let actor = Actor {
        id: some(&commit.email).or_else(|| some(&commit.name)),
        name: some(&commit.name),
        email: some(&commit.email),
        ..Actor::new(ActorKind::User)
    };
    let subject: String = commit.subject.chars().take(200).collect();
    let mut builder = AuditEvent::builder(TENANT, "git", action, "file", &touched.path)
        .event_id(id_of(&["git", repository, &commit.hash, &touched.path]))
        .occurred_at(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
        .operation(operation)
        .actor(actor)
        .correlation_id(&commit.hash)
        .details(format!("{{\"repository\":{},\"subject\":{}}}", json(repository), json(&subject)));
    if let Some(old_path) = &touched.old_path {
        builder = builder.change("/path", Some(&json(old_path)), Some(&json(&touched.path)));
    }
    if let Some((added, removed)) = touched.lines {
        builder = builder.change("/lines_added", None, Some(&added.to_string())).change(
            "/lines_removed",
            None,
            Some(&removed.to_string()),
        );
    }
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HASH: &str = "bb74304b3f90946dbe2c985bb5b0e97942880dde";

    fn parse(text: &str, limit: usize) -> Reading {
        let mut parser = Parser::new("shop");
        parser.read(text.as_bytes(), limit, &mut |_| ());
        parser.finish(limit)
    }

    /// As git 2.39 wrote it for a commit that changed a binary file, renamed one and added one.
    fn commit(time: &str) -> String {
        let raw = ":100644 100644 c1 a1 M\0bin\0:100644 100644 d6 d6 R100\0fil é.txt\0ren\ttab.txt\0:000000 100644 00 d6 A\0c\nd\0";
        format!(
            "\0{HASH}\0{time}\0Ünï\0a@b\0sec \"q\"\0\0\n{raw}-\t-\tbin\0{}\t2\t\0fil é.txt\0ren\ttab.txt\0{}\t0\tc\nd\0",
            11, 4
        )
    }

    #[test]
    fn each_file_is_an_event_of_its_author() {
        let reading = parse(&commit("1769860800"), 100);
        assert_eq!(reading.unreadable, 0);
        // Oldest first: the order of git turned round.
        let [added, renamed, binary] = &reading.events[..] else { unreachable!("{reading:?}") };
        assert_eq!((added.action.as_str(), added.entity_id.as_str()), ("file.create", "c\nd"));
        assert_eq!((renamed.action.as_str(), renamed.entity_id.as_str()), ("file.rename", "ren\ttab.txt"));
        assert_eq!(renamed.changes[0].old.as_deref(), Some("\"fil é.txt\""));
        assert_eq!(renamed.changes[1].new.as_deref(), Some("11"));
        assert_eq!(renamed.changes[2].new.as_deref(), Some("2"));
        assert_eq!((binary.action.as_str(), binary.changes.len()), ("file.update", 0));
        for event in &reading.events {
            assert_eq!(event.actor.name.as_deref(), Some("Ünï"));
            assert_eq!(event.actor.id.as_deref(), Some("a@b"));
            assert_eq!(event.correlation_id.as_deref(), Some(HASH));
            assert_eq!(event.occurred_at.to_string(), "2026-01-31T12:00:00Z");
            assert_eq!(event.details, r#"{"repository":"shop","subject":"sec \"q\""}"#);
        }
    }

    #[test]
    fn the_limit_keeps_the_newest() {
        let text = commit("1769860802") + &commit("1769860801") + &commit("1769860800");
        let reading = parse(&text, 4);
        assert!(reading.cut);
        assert_eq!(reading.events.len(), 4);
        assert_eq!(reading.events.last().unwrap().occurred_at.to_string(), "2026-01-31T12:00:02Z");
        assert!(!parse(&text, 100).cut);
    }

    #[test]
    fn an_impossible_time_or_path_is_counted() {
        assert_eq!(parse(&commit("9223372036854775807"), 9).unreadable, 3);
        assert_eq!(parse(&commit("yesterday"), 9).unreadable, 3);
        let long = format!("\0{HASH}\0001\0n\0e\0s\0\0\n:0 1 0 0 A\0{}\0", "x".repeat(600));
        let reading = parse(&long, 9);
        assert_eq!((reading.unreadable, reading.events.len()), (1, 0));
    }

    #[test]
    fn nonsense_ends_quietly() {
        for text in ["", "\0\0\0", "nonsense", ":", ":x", "1\t2", "1\t2\t", &commit("1")[..60]] {
            assert_eq!(parse(text, 9).events.len(), 0, "{text:?}");
        }
    }

    #[test]
    fn an_author_without_name_and_address_is_still_a_user() {
        let text = format!("\0{HASH}\0001\0\0\0\0\0\n:0 1 0 0 A\0f\0");
        let reading = parse(&text, 9);
        assert_eq!(reading.events[0].actor, Actor::new(ActorKind::User));
    }

    #[test]
    fn a_folder_that_is_no_repository_is_said() {
        let problem = read(Path::new("/proc"), 1, &mut |_| ()).unwrap_err();
        assert!(problem.contains("git"), "{problem}");
    }
}
