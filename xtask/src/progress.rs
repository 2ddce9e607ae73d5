//! What an installation shows: a moving line on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use auditstream_stack::{Life, Lines, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// The form that suits stderr.
pub(crate) fn shown() -> Box<dyn Progress> {
    if io::stderr().is_terminal() { Box::new(Bar::default()) } else { Box::new(Lines::default()) }
}

#[derive(Default)]
struct Bar {
    running: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn finish(&self) {
        if let Some(bar) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn step(&self, message: &str) {
        self.finish();
        eprintln!("{message}");
    }

    fn alive(&self, life: &Life<'_>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = running.get_or_insert_with(|| bar(life.total));
        match (life.bytes, life.total) {
            (Some(done), Some(total)) => bar.set_position(done.min(total)),
            (Some(done), None) => bar.set_position(done),
            _ => {}
        }
        bar.set_message(life.last_line.chars().take(60).collect::<String>());
        bar.tick();
    }

    fn ended(&self) {
        self.finish();
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "  {spinner} {elapsed} [{bar:30}] {bytes} of about {total_bytes}"),
        None => (ProgressBar::new_spinner(), "  {spinner} {elapsed} {msg}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
