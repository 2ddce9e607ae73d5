//! SIGINT and SIGTERM: the first one asks for a graceful end, the second one ends at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output;

/// Listens from the moment it is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub(crate) fn listen() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The exit code that belongs to the next signal: 130 or 143. May be awaited again, and dropped, at any time.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }

    /// Waits for the first signal; from then on another one ends the process at once.
    pub(crate) async fn first(mut self, what_happens: &'static str) -> u8 {
        let code = self.next().await;
        output::complain(what_happens);
        self.force_on_next();
        code
    }

    /// From now on a signal ends the process at once.
    pub(crate) fn force_on_next(mut self) {
        tokio::spawn(async move {
            let code = self.next().await;
            output::complain("ended at once by a second signal");
            std::process::exit(i32::from(code));
        });
    }
}
