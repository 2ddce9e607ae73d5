//! The machine's package history: `/var/log/dpkg.log` and its older files, as `deb-log` lines (dpkg(1), option `--log`).
//!
//! `2026-01-31 09:30:00 upgrade libssl3:amd64 3.0.15-1 3.0.16-1`: local time, action, package and architecture, version before, version after.
//! Lines about states, triggers and configuration tell nothing that was decided, and are left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use auditstream_schemas::{Actor, ActorKind, AuditEvent, Operation, Timestamp};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Reading, TENANT, id_of, json};

/// Reads lines of dpkg's log; remembers how often the same line came, since two equal lines of one second are two events.
#[derive(Debug)]
pub struct Reader {
    zone: TimeZone,
    host: String,
    seen: HashMap<String, u32>,
    reading: Reading,
}

impl Reader {
    /// A reader of a log that `host` wrote in `zone`.
    #[must_use]
    pub fn new(zone: TimeZone, host: &str) -> Self {
        Self { zone, host: host.to_owned(), seen: HashMap::new(), reading: Reading::default() }
    }

    /// Takes one line, with or without its line end.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let mut words = line.split(' ');
        let (Some(date), Some(time), Some(action)) = (words.next(), words.next(), words.next()) else {
            self.reading.unreadable += u64::from(!line.is_empty());
            return;
        };
        let (action, operation) = match action {
            "install" => ("package.install", Operation::Create),
            "upgrade" => ("package.upgrade", Operation::Update),
            "remove" => ("package.remove", Operation::Delete),
            "purge" => ("package.purge", Operation::Delete),
            _ => return,
        };
        let event = (|| {
            let (package, old, new) = (words.next()?, words.next()?, words.next()?);
            let (name, architecture) = package.split_once(':').unwrap_or((package, "all"));
            let at: DateTime = format!("{date}T{time}").parse().ok()?;
            // Twice or never at a change of the clocks: the earlier of two, and past the gap.
            let at = self.zone.to_ambiguous_timestamp(at).compatible().ok()?;
            let count = self.seen.entry(line.to_owned()).and_modify(|count| *count += 1).or_insert(1);
            let (old, new) = (version(old), version(new));
            AuditEvent::builder(TENANT, "dpkg", action, "package", name)
                .event_id(id_of(&["dpkg", &self.host, line, &count.to_string()]))
                .occurred_at(Timestamp::from_micros(at.as_microsecond()))
                .operation(operation)
                .actor(Actor { id: Some("dpkg".to_owned()), ..Actor::new(ActorKind::System) })
                .change("/version", old.as_deref(), new.as_deref())
                .details(format!("{{\"host\":{},\"architecture\":{}}}", json(&self.host), json(architecture)))
                .build()
                .ok()
        })();
        match event {
            Some(event) => self.reading.events.push(event),
            None => self.reading.unreadable += 1,
        }
    }

    /// What was read.
    #[must_use]
    pub fn finish(self) -> Reading {
        self.reading
    }
}

/// A version as JSON text, if there is one.
fn version(word: &str) -> Option<String> {
    (word != "<none>" && !word.is_empty()).then(|| json(word))
}

/// dpkg's log files in `folder`, oldest first: `dpkg.log`, `dpkg.log.1`, `dpkg.log.2.gz`, ...
///
/// # Errors
/// The folder can't be listed.
pub fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(age) = name.to_str().and_then(age) {
            files.push((age, folder.join(name)));
        }
    }
    files.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// How many turns ago logrotate put a file aside; `None` when it is no log of dpkg.
fn age(name: &str) -> Option<u32> {
    match name.strip_prefix("dpkg.log")? {
        "" => Some(0),
        rest => {
            let number = rest.strip_prefix('.')?;
            number.strip_suffix(".gz").unwrap_or(number).parse().ok()
        }
    }
}

/// The text of one of [`files`]. A compressed one is read by the machine's `gzip`.
///
/// # Errors
/// The file can't be read.
pub fn text(path: &Path) -> std::io::Result<String> {
    let bytes = if path.extension().is_some_and(|end| end == "gz") {
        Command::new("gzip").args(["-dc", "--"]).arg(path).output()?.stdout
    } else {
        std::fs::read(path)?
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(zone: TimeZone, lines: &[&str]) -> Reading {
        let mut reader = Reader::new(zone, "box");
        lines.iter().for_each(|line| reader.line(line));
        reader.finish()
    }

    #[test]
    fn decisions_become_events_and_states_do_not() {
        let reading = read(
            TimeZone::UTC,
            &[
                "2025-06-24 14:36:25 startup archives unpack",
                "2025-06-24 14:36:25 upgrade libsystemd0:amd64 252.36-1~deb12u1 252.38-1~deb12u1\n",
                "2025-06-24 14:36:25 status half-configured libsystemd0:amd64 252.36-1~deb12u1",
                "2025-06-24 14:36:29 install perl-modules-5.36:all <none> 5.36.0-7+deb12u2",
                "2025-06-24 14:36:30 remove gcc-12:amd64 12.2.0-14 <none>",
                "2025-06-24 14:36:31 purge gcc-12:amd64 12.2.0-14 <none>",
                "2025-06-24 14:36:31 trigproc libc-bin:amd64 2.36-9 <none>",
                "",
            ],
        );
        assert_eq!(reading.unreadable, 0);
        let told: Vec<_> = reading
            .events
            .iter()
            .map(|e| {
                (e.action.as_str(), e.entity_id.as_str(), e.changes[0].old.as_deref(), e.changes[0].new.as_deref())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("package.upgrade", "libsystemd0", Some("\"252.36-1~deb12u1\""), Some("\"252.38-1~deb12u1\"")),
                ("package.install", "perl-modules-5.36", None, Some("\"5.36.0-7+deb12u2\"")),
                ("package.remove", "gcc-12", Some("\"12.2.0-14\""), None),
                ("package.purge", "gcc-12", Some("\"12.2.0-14\""), None),
            ]
        );
        assert_eq!(reading.events[0].occurred_at.to_string(), "2025-06-24T14:36:25Z");
        assert_eq!(reading.events[1].details, "{\"host\":\"box\",\"architecture\":\"all\"}");
    }

    #[test]
    fn times_are_local() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let reading = read(
            zone,
            &[
                "2025-01-24 12:00:00 install a:all <none> 1",
                "2025-06-24 12:00:00 install a:all <none> 1",
                "2025-03-30 02:30:00 install in-the-gap:all <none> 1",
                "2025-10-26 02:30:00 install twice:all <none> 1",
            ],
        );
        let times: Vec<_> = reading.events.iter().map(|event| event.occurred_at.to_string()).collect();
        assert_eq!(
            times,
            ["2025-01-24T11:00:00Z", "2025-06-24T10:00:00Z", "2025-03-30T01:30:00Z", "2025-10-26T00:30:00Z"]
        );
    }

    #[test]
    fn odd_lines_are_counted_and_nothing_else() {
        let reading = read(
            TimeZone::UTC,
            &[
                "torn",
                "2025-06-24 14:36:25 install half:amd64",
                "2025-13-24 14:36:25 install a:amd64 <none> 1",
                "2025-06-24 14:36 \u{fffd} upgrade",
                "2025-06-24 14:36:25 install :amd64 <none> 1",
                "2025-06-24 14:36:25 install no-architecture <none> 1",
            ],
        );
        assert_eq!(reading.unreadable, 4);
        assert_eq!(reading.events.len(), 1);
    }

    #[test]
    fn equal_lines_are_two_events_and_stay_the_same_two() {
        let lines = ["2025-06-24 14:36:25 install a:all <none> 1"; 2];
        let (first, second) = (read(TimeZone::UTC, &lines), read(TimeZone::UTC, &lines));
        assert_ne!(first.events[0].event_id, first.events[1].event_id);
        assert_eq!(first.events, second.events);
    }

    #[test]
    fn files_are_ordered_by_age() {
        assert_eq!(age("dpkg.log"), Some(0));
        assert_eq!(age("dpkg.log.1"), Some(1));
        assert_eq!(age("dpkg.log.12.gz"), Some(12));
        for other in ["alternatives.log", "dpkg.log.old", "dpkg.logs", "dpkg.log.gz"] {
            assert_eq!(age(other), None, "{other}");
        }
    }
}
