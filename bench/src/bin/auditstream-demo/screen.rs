//! What the demo says: numbered steps and answers on standard output, moving progress on standard error.
//!
//! Where standard error is no terminal, progress is a line every two seconds. A reader that goes away ends nothing: the demo's exit code still counts.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use auditstream_bench::table::thousands;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(2);

/// Standard output and what stands on it so far.
pub(crate) struct Screen {
    step: Cell<u32>,
    steps: Cell<u32>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { step: Cell::new(0), steps: Cell::new(0) }
    }

    /// Steps count on behind `done`, up to `all`.
    pub(crate) fn number_from(&self, done: u32, all: u32) {
        self.step.set(done);
        self.steps.set(all);
    }

    /// A new numbered step.
    pub(crate) fn step(&self, title: &str) {
        self.step.set(self.step.get() + 1);
        self.say(&format!("\n[{}/{}] {title}", self.step.get(), self.steps.get()));
    }

    /// Lines as they are.
    pub(crate) fn say(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed pipe must not end the proof.
        let _ = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
    }

    /// Something that takes a while: `total` units, or 0 when nobody knows.
    pub(crate) fn bar(&self, what: &'static str, total: u64) -> Bar {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let (bar, template) = if total > 0 {
            (
                ProgressBar::with_draw_target(Some(total), target),
                "  {spinner} {msg} [{bar:30}] {human_pos} of {human_len}  {rate}  {elapsed}",
            )
        } else {
            (ProgressBar::with_draw_target(None, target), "  {spinner} {msg}  {human_pos}  {elapsed}")
        };
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.progress_chars("=> ").with_key("rate", rate)),
            Err(_) => bar,
        };
        bar.set_message(what);
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(150));
        }
        Bar { bar, what, total, terminal, last: Cell::new(Instant::now()) }
    }
}

/// Whole units a second.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    // A progress bar that can't be written is no loss.
    let _ = write!(out, "{}/s", thousands(state.per_sec() as u64));
}

/// Moves until dropped, and leaves no trace on a terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: &'static str,
    total: u64,
    terminal: bool,
    last: Cell<Instant>,
}

impl Bar {
    /// So many units are done.
    pub(crate) fn set(&self, done: u64) {
        self.bar.set_position(done);
        if !self.terminal && self.last.get().elapsed() >= LINE_EVERY {
            self.last.set(Instant::now());
            match (done, self.total) {
                (0, 0) => eprintln!("  {} ...", self.what),
                (done, 0) => eprintln!("  {} ... {}", self.what, thousands(done)),
                (done, total) => eprintln!("  {} ... {} of {}", self.what, thousands(done), thousands(total)),
            }
        }
    }

    /// Shows `done()` while `work` goes on.
    pub(crate) async fn during<T>(&self, done: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = tick.tick() => self.set(done()),
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
