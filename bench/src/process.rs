//! What a process has used, from /proc (proc(5)).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Time on a CPU, in user and kernel mode, all threads.
    pub cpu: Duration,
    /// The most memory that was ever resident, in bytes (`VmHWM`).
    pub peak_rss: u64,
}

/// The usage of a living process.
///
/// # Errors
/// There is no such process, or /proc can't be read.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let per_second = ticks_per_second();
    let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat has another form"))?;
    let peak_rss = peak_rss(&status).ok_or_else(|| io::Error::other("/proc/PID/status has no VmHWM"))?;
    Ok(Usage { cpu: Duration::from_secs_f64(ticks as f64 / f64::from(per_second)), peak_rss })
}

/// CPU time of a living process by the names of its threads, those of one name together; threads that have ended are not among them.
///
/// # Errors
/// There is no such process, or /proc can't be read.
pub fn threads(pid: u32) -> io::Result<BTreeMap<String, Duration>> {
    let per_second = ticks_per_second();
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ends meanwhile is one that has ended.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else { continue };
        if let (Some(name), Some(ticks)) = (thread_name(&stat), cpu_ticks(&stat)) {
            *all.entry(name.to_owned()).or_default() += Duration::from_secs_f64(ticks as f64 / f64::from(per_second));
        }
    }
    Ok(all)
}

/// Field 2 of a stat file, without its parentheses.
fn thread_name(stat: &str) -> Option<&str> {
    stat.get(stat.find('(')? + 1..stat.rfind(')')?)
}

fn ticks_per_second() -> u32 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100)
}

/// What of a living process is in memory now, in bytes (`VmRSS`).
///
/// # Errors
/// There is no such process, or /proc can't be read.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    bytes(&status, "VmRSS:").ok_or_else(|| io::Error::other("/proc/PID/status has no VmRSS"))
}

/// utime and stime, fields 14 and 15. The name in field 2 may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn peak_rss(status: &str) -> Option<u64> {
    bytes(status, "VmHWM:")
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 4 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(22));
        assert_eq!(thread_name(stat), Some("a) b) (c"));
        assert_eq!(cpu_ticks("42"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.peak_rss > 100_000, "{usage:?}");
        assert!((100_000..=usage.peak_rss.max(1 << 20) * 2).contains(&resident(std::process::id()).unwrap()));
        let threads = threads(std::process::id()).unwrap();
        assert!(threads.values().sum::<Duration>() <= super::usage(std::process::id()).unwrap().cpu, "{threads:?}");
        assert!(threads.keys().any(|name| name.starts_with("process::tests")), "{threads:?}");
        assert_eq!(peak_rss("Name:\tx\nVmHWM:\t   2048 kB\n"), Some(2_097_152));
    }
}
