//! What the producer's tests share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use auditstream_producer::Config;
use auditstream_schemas::AuditEvent;

/// The smallest executor there is: proof that the producer needs no tokio.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

pub fn event(entity: &str) -> AuditEvent {
    AuditEvent::builder("acme", "shop", "order.update", "order", entity).build().unwrap()
}

pub fn config(bootstrap: &str) -> Config {
    Config {
        bootstrap_servers: bootstrap.to_owned(),
        producer_id: Some("test".to_owned()),
        linger: Duration::from_millis(1),
        delivery_timeout: Duration::from_secs(30),
        ..Config::default()
    }
}
