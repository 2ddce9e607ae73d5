//! Tables, topics and workers, all by the public `auditstream` program.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auditstream_bench::target::Target;
use auditstream_bench::worker::Worker;
use auditstream_stack::Role;

use crate::run::Demo;
use crate::screen::Screen;

/// How long two workers may take to share the partitions.
const JOIN: Duration = Duration::from_secs(30);

/// `auditstream migrate` and `auditstream topics create`.
pub(crate) async fn tables_and_topics(demo: &Demo<'_>) -> Result<()> {
    auditstream(demo, &["migrate"]).await?;
    auditstream(demo, &["topics", "create"]).await
}

/// Runs `auditstream` as administrator, and shows the command and what it says.
async fn auditstream(demo: &Demo<'_>, args: &[&str]) -> Result<()> {
    auditstream_with(demo.screen, &demo.target, &demo.program, args, &[]).await
}

/// The same with environment variables, without a demo.
pub(crate) async fn auditstream_with(
    screen: &Screen,
    target: &Target,
    program: &Path,
    args: &[&str],
    env: &[(&str, &str)],
) -> Result<()> {
    let command = args.join(" ");
    screen.say(&format!("  $ auditstream {command}"));
    let mut child = auditstream_stack::bound(program)?;
    child.args(args).arg("--config").arg(target.config(Role::Admin)).envs(env.iter().copied()).stdin(Stdio::null());
    let mut child = tokio::process::Command::from(child);
    let output = screen.bar("at work", 0).during(|| 0, child.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("auditstream {command} can't be started"))?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        screen.say(&format!("    {line}"));
    }
    if !output.status.success() {
        bail!(
            "auditstream {command} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

/// Starts two workers and waits until both are members of the group.
pub(crate) async fn two_workers(demo: &Demo<'_>, names: [&str; 2]) -> Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for name in names {
        workers.push(demo.worker(name)?);
    }
    demo.screen.say("  $ auditstream consume    (two of them)");
    let begun = Instant::now();
    let bar = demo.screen.bar("the workers join the group", 0);
    let ready = async {
        loop {
            let mut ready = true;
            for worker in &mut workers {
                ready &= worker.is_ready()?;
            }
            if ready {
                return Ok(());
            }
            if begun.elapsed() > JOIN {
                bail!(
                    "the workers are not ready after {} s; their logs: {}",
                    JOIN.as_secs(),
                    demo.target.state().dir.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    bar.during(|| 0, ready).await?;
    drop(bar);
    let pids: Vec<String> = workers.iter().map(|worker| format!("{} (pid {})", worker.id(), worker.pid())).collect();
    demo.screen.say(&format!("    {} ready after {:.1} s", pids.join(" and "), begun.elapsed().as_secs_f64()));
    Ok(workers)
}

/// Sends SIGTERM and waits until each worker has stored and committed what it read.
pub(crate) async fn drain(demo: &Demo<'_>, workers: Vec<Worker>) -> Result<()> {
    let begun = Instant::now();
    let bar = demo.screen.bar("the workers drain", 0);
    let stop = tokio::task::spawn_blocking(move || {
        // All at once: each has its own deadline.
        let threads: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(move || worker.stop())).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended badly")))
    });
    bar.during(|| 0, stop).await.context("a thread ended badly")??;
    drop(bar);
    demo.screen
        .say(&format!("  workers stopped by SIGTERM, drained and committed in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}
