//! The faults that the system survives: each is made on the real servers, and the oracle decides. Every test leaves a record of it.

mod answers;
mod batches;
mod controls;
mod group;
mod kills;
mod letters;
mod long;
mod refusals;
mod rolling;
mod tables;
mod times;
mod topics;

use std::time::Duration;

use auditstream_integration_tests::{Fixture, Proxy, Worker, wait_until};
use auditstream_stack::Server;

/// Much longer than anything here takes on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// In the head of an insert into the events, and of no other request.
pub(crate) const EVENTS: &str = "events%60";

/// A worker that reaches ClickHouse by way of `proxy`.
pub(crate) fn worker_behind(fixture: &Fixture, proxy: &Proxy) -> Worker {
    fixture.worker_with(&[("AUDITSTREAM_CLICKHOUSE__URL", &proxy.url())])
}

pub(crate) fn wait_metric(worker: &Worker, name: &str, least: f64) {
    let what = format!("{name} of worker {} to reach {least}", worker.name());
    wait_until(&what, PATIENCE, || match worker.metric(&format!("auditstream_consumer_{name}"))? {
        value if value >= least => Ok(()),
        value => Err(value.to_string()),
    });
}

/// A server that other tests use too, killed; it runs again at the latest when this is dropped.
pub(crate) struct Killed<'a>(Option<&'a Server>);

impl<'a> Killed<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        server.kill().unwrap();
        Self(Some(server))
    }

    pub(crate) fn start(mut self) {
        self.0.take().unwrap().start().unwrap();
    }
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.0 {
            server.start().unwrap();
        }
    }
}

/// A server that other tests use too, frozen until dropped.
pub(crate) struct Frozen<'a>(&'a Server);

impl<'a> Frozen<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        server.pause().unwrap();
        Self(server)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.resume().unwrap();
    }
}
