//! What a server of many processes has used, from /proc (proc(5)): PostgreSQL has one for each connection and for each helper of a query.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// What a process and its children have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Family {
    /// Time on a CPU, in user and kernel mode.
    pub cpu: Duration,
    /// Bytes fetched from storage; what the page cache had does not count. None where the kernel does not tell.
    pub disk_bytes: Option<u64>,
}

/// Of the living process `parent`, of its living children, and of those that have ended and that it has waited for.
///
/// # Errors
/// There is no such process, or /proc can't be read.
pub fn family(parent: u32) -> io::Result<Family> {
    let mut ticks = fields(&fs::read_to_string(format!("/proc/{parent}/stat"))?)
        .ok_or_else(|| io::Error::other("/proc/PID/stat has another form"))?
        .ticks;
    let mut disk_bytes = fetched(parent);
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some(child) = fields(&stat).filter(|child| child.parent == parent) {
            ticks += child.ticks;
            disk_bytes = disk_bytes.zip(fetched(pid)).map(|(all, own)| all + own);
        }
    }
    let per_second =
        sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
    Ok(Family { cpu: Duration::from_secs_f64(ticks as f64 / f64::from(per_second)), disk_bytes })
}

/// Bytes that a living process has fetched from storage; None where the kernel does not tell.
#[must_use]
pub fn fetched(pid: u32) -> Option<u64> {
    read_bytes(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?)
}

fn read_bytes(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct Fields {
    parent: u32,
    /// utime, stime, cutime, cstime.
    ticks: u64,
}

/// Fields 4 and 14 to 17. The name in field 2 may hold spaces and parentheses.
fn fields(stat: &str) -> Option<Fields> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Fields { parent: fields.get(1)?.parse().ok()?, ticks })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "42 (a) b) (c) S 7 42 42 0 -1 4194560 100 0 0 0 17 5 3 2 20 0 4 0 100 1000 10";
        assert_eq!(fields(stat), Some(Fields { parent: 7, ticks: 27 }));
        assert_eq!(fields("42"), None);
        assert_eq!(read_bytes("rchar: 1\nread_bytes: 4096\nwrite_bytes: 2\n"), Some(4096));
    }

    #[test]
    fn children_count_also_when_they_have_ended() {
        let this = std::process::id();
        let before = family(this).unwrap().cpu;
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", busy]).status().unwrap().success());
        assert!(family(this).unwrap().cpu > before);
        assert!(family(u32::MAX).is_err());
    }
}
