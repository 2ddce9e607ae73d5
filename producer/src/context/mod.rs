//! What is known about the HTTP request that is being served, at hand deep in the call without being passed along.
//!
//! [`AuditContextLayer`] makes a [`RequestContext`] for each request, and the request's future carries it: a task-local
//! of tokio that goes with the future from thread to thread and ends with it. [`Producer::record`](crate::Producer::record)
//! and `record_acked` write it into every event handed in meanwhile, as far as the event says nothing itself; the caller's
//! thread only takes a reference, the sender thread writes.
//!
//! ```
//! use auditstream_producer::context::{AuditContextLayer, InRequest, RequestContext};
//! use auditstream_schemas::AuditEvent;
//! use axum::{Router, routing::get};
//!
//! async fn order() -> String {
//!     // `record` does this by itself; what goes elsewhere can be given the context by hand.
//!     let event = AuditEvent::builder("acme", "shop", "order.read", "order", "42").in_request().build();
//!     // A spawned task is another future: take the context along.
//!     if let Some(context) = RequestContext::current() {
//!         tokio::spawn(context.scope(async { /* `record` here still knows the request */ }));
//!     }
//!     format!("{:?}", event.map(|event| event.http_path))
//! }
//!
//! let app: Router = Router::new()
//!     .route("/orders/{id}", get(order))
//!     .layer(AuditContextLayer::new().trust_proxies(["10.0.0.0/8", "fd00::/8"])?);
//! # Ok::<(), auditstream_producer::context::NotARange>(())
//! ```
//!
//! Promises: what is set on the event wins; nothing of one request is seen by another; a request that records nothing pays
//! for one allocation, the context's own.

mod cidr;
mod forwarded;
mod layer;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use auditstream_schemas::{Actor, ActorKind, AuditEvent, EventBuilder, limits};
use axum::extract::MatchedPath;
use http::{HeaderValue, Method};
use tokio::task::futures::TaskLocalFuture;
use uuid::Uuid;

pub use cidr::{IpRange, NotARange};
pub use forwarded::ForwardedHeader;
pub use layer::{AuditContext, AuditContextLayer};

use crate::headers::TraceParent;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The request that is being served. Cheap to clone; all clones are the same context.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    seen: Seen,
    /// Made of `seen` when the first event needs it.
    fields: OnceLock<Arc<Fields>>,
    request_id: OnceLock<String>,
    actor: OnceLock<Arc<Actor>>,
}

/// What the layer saw. Nothing here was copied: header values are references into the request's head.
struct Seen {
    ip: Option<IpAddr>,
    method: Method,
    path: Option<MatchedPath>,
    user_agent: Option<HeaderValue>,
    user_agent_bytes: usize,
    request_id: Option<HeaderValue>,
    correlation_id: Option<HeaderValue>,
    traceparent: Option<TraceParent>,
}

/// The same as text that an event may keep: it does not hold on to the request's head.
pub(crate) struct Fields {
    ip: Option<IpAddr>,
    method: Method,
    path: Option<MatchedPath>,
    user_agent: Option<String>,
    request_id: String,
    correlation_id: Option<String>,
    traceparent: Option<TraceParent>,
}

/// What an event that was handed in takes along.
pub(crate) struct ForEvent {
    fields: Arc<Fields>,
    actor: Option<Arc<Actor>>,
}

impl RequestContext {
    /// The context of the request that this call belongs to. `None` outside of a request, and in a task that was spawned
    /// without [`RequestContext::scope`].
    pub fn current() -> Option<RequestContext> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The future with this context as its current one: for a task that is spawned, or for a response body that is
    /// made after the handler has returned.
    pub fn scope<F: Future>(&self, future: F) -> InContext<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// The same for a call on this thread, such as the closure of `spawn_blocking`.
    pub fn sync_scope<R>(&self, call: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.clone(), call)
    }

    /// The client's address, as far as the trusted proxies tell it.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.seen.ip
    }

    /// The request's id: the header `x-request-id` if it has 1 to 128 visible ASCII characters, otherwise a new UUIDv7
    /// that stays the same for this request.
    pub fn request_id(&self) -> &str {
        self.0.request_id.get_or_init(|| {
            let given = self.0.seen.request_id.as_ref().and_then(identifier);
            given.unwrap_or_else(|| Uuid::now_v7().to_string())
        })
    }

    /// The request's valid `traceparent`.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.0.seen.traceparent
    }

    /// Who is calling, if that is known.
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actor.get().map(|actor| &**actor)
    }

    /// Says who is calling, for an application that knows it only in the handler. The first answer stays: `false` when
    /// there is another one already. Text beyond an event's limits is cut, and empty text counts as none.
    pub fn set_actor(&self, actor: Actor) -> bool {
        self.0.actor.set(Arc::new(within_limits(actor))).is_ok()
    }

    /// Fills in what the event does not say: client address, user agent, ids, method, path template, and the actor of an
    /// event that has the default one (SYSTEM, nothing else known).
    pub fn apply(&self, event: &mut AuditEvent) {
        self.for_event().apply(event);
    }

    pub(crate) fn for_event(&self) -> ForEvent {
        let fields = self.0.fields.get_or_init(|| Arc::new(self.make_fields()));
        ForEvent { fields: Arc::clone(fields), actor: self.0.actor.get().cloned() }
    }

    fn make_fields(&self) -> Fields {
        let seen = &self.0.seen;
        let bound = seen.user_agent_bytes.min(limits::USER_AGENT_BYTES);
        Fields {
            ip: seen.ip,
            method: seen.method.clone(),
            path: seen.path.clone(),
            user_agent: seen.user_agent.as_ref().and_then(|value| bounded_text(value, bound)),
            request_id: self.request_id().to_owned(),
            correlation_id: seen.correlation_id.as_ref().and_then(identifier),
            traceparent: seen.traceparent,
        }
    }
}

impl fmt::Debug for RequestContext {
    /// Without what says who is calling from where: contexts end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.0.seen;
        let path = seen.path.as_ref().map(MatchedPath::as_str);
        f.debug_struct("RequestContext").field("method", &seen.method).field("path", &path).finish_non_exhaustive()
    }
}

/// A future with a context: see [`RequestContext::scope`].
pub type InContext<F> = TaskLocalFuture<RequestContext, F>;

impl ForEvent {
    /// What the current request has to say about an event, if there is one.
    pub(crate) fn current() -> Option<ForEvent> {
        CURRENT.try_with(RequestContext::for_event).ok()
    }

    pub(crate) fn traceparent(&self) -> Option<TraceParent> {
        self.fields.traceparent
    }

    /// At most this many bytes are added to an event.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let fields = &self.fields;
        let actor = self.actor.as_ref();
        let actor = actor.map_or(0, |a| text(&a.id) + text(&a.name) + text(&a.email) + text(&a.session_id));
        let path = fields.path.as_ref().map_or(0, |path| path.as_str().len());
        let own = text(&fields.user_agent) + text(&fields.correlation_id) + fields.request_id.len();
        // 45 for an address, 32 for a trace id, 3 for each length.
        actor + path + own + fields.method.as_str().len() + 45 + 32 + 11 * 3
    }

    pub(crate) fn apply(&self, event: &mut AuditEvent) {
        let fields = &*self.fields;
        fill(&mut event.ip, || fields.ip.map(|ip| ip.to_string()));
        fill(&mut event.user_agent, || fields.user_agent.clone());
        fill(&mut event.request_id, || Some(fields.request_id.clone()));
        fill(&mut event.correlation_id, || fields.correlation_id.clone());
        fill(&mut event.trace_id, || fields.traceparent.map(|parent| parent.trace_id().to_owned()));
        let short = |text: &str, limit: usize| (text.len() <= limit).then(|| text.to_owned());
        fill(&mut event.http_method, || short(fields.method.as_str(), limits::SHORT_BYTES));
        fill(&mut event.http_path, || short(fields.path.as_ref()?.as_str(), limits::PATH_BYTES));
        if let Some(actor) = &self.actor
            && event.actor == Actor::new(ActorKind::System)
        {
            event.actor = Actor::clone(actor);
        }
    }
}

impl fmt::Debug for ForEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForEvent")
    }
}

fn fill(field: &mut Option<String>, value: impl FnOnce() -> Option<String>) {
    if field.is_none() {
        *field = value();
    }
}

/// Fills an event under construction from the current request.
pub trait InRequest {
    /// What is not set yet is taken from the current request, if there is one; what is set afterwards wins as well.
    #[must_use]
    fn in_request(self) -> Self;
}

impl InRequest for EventBuilder {
    fn in_request(self) -> EventBuilder {
        match RequestContext::current() {
            Some(context) => self.with(|event| context.apply(event)),
            None => self,
        }
    }
}

fn within_limits(mut actor: Actor) -> Actor {
    let Actor { id, name, email, session_id, .. } = &mut actor;
    let ids = [(id, limits::ID_BYTES), (session_id, limits::ID_BYTES)];
    for (field, limit) in ids.into_iter().chain([(name, limits::NAME_BYTES), (email, limits::NAME_BYTES)]) {
        if let Some(text) = field {
            cut(text, limit);
        }
        *field = field.take().filter(|text| !text.is_empty());
    }
    actor
}

/// To at most so many bytes, between two characters.
fn cut(text: &mut String, limit: usize) {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// Most characters of an id that comes in a header.
const IDENTIFIER_BYTES: usize = 128;

fn identifier(value: &HeaderValue) -> Option<String> {
    let bytes = value.as_bytes();
    let good = (1..=IDENTIFIER_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if good { std::str::from_utf8(bytes).ok().map(str::to_owned) } else { None }
}

/// The value, cut to the bound; what is no UTF-8 is replaced. `None` when nothing is left.
fn bounded_text(value: &HeaderValue, bound: usize) -> Option<String> {
    let bytes = value.as_bytes();
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(bound)]).into_owned();
    // A replacement character is longer than the byte it stands for.
    cut(&mut text, bound);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn context() -> RequestContext {
        let seen = Seen {
            ip: Some("2001:db8::9".parse().unwrap()),
            method: Method::PUT,
            path: None,
            user_agent: Some(HeaderValue::from_static("curl/8")),
            user_agent_bytes: 512,
            request_id: Some(HeaderValue::from_static("r-1")),
            correlation_id: Some(HeaderValue::from_static("with space")),
            traceparent: TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        };
        RequestContext::new(seen, Some(Actor::user("u-7")))
    }

    #[test]
    fn what_is_not_set_is_filled_and_what_is_set_wins() {
        let builder = || AuditEvent::builder("acme", "shop", "order.update", "order", "42");
        let event = context().sync_scope(|| builder().in_request().build().unwrap());
        assert_eq!(event.ip.as_deref(), Some("2001:db8::9"));
        assert_eq!(event.user_agent.as_deref(), Some("curl/8"));
        assert_eq!(event.request_id.as_deref(), Some("r-1"));
        assert_eq!(event.correlation_id, None);
        assert_eq!(event.trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((event.http_method.as_deref(), event.http_path), (Some("PUT"), None));
        assert_eq!(event.actor, Actor::user("u-7"));

        let set = |b: EventBuilder| {
            b.ip("192.0.2.1").user_agent("x").request_id("y").trace_id("z").http_method("GET").actor(Actor::user("u-8"))
        };
        for event in [
            context().sync_scope(|| set(builder()).in_request().build().unwrap()),
            context().sync_scope(|| set(builder().in_request()).build().unwrap()),
        ] {
            let found = [&event.ip, &event.user_agent, &event.request_id, &event.trace_id, &event.http_method];
            assert_eq!(found.map(|text| text.as_deref().unwrap()), ["192.0.2.1", "x", "y", "z", "GET"]);
            assert_eq!(event.actor, Actor::user("u-8"));
        }
        let outside = builder().in_request().build().unwrap();
        assert_eq!((outside.ip, outside.request_id, outside.actor.kind), (None, None, ActorKind::System));
    }

    #[test]
    fn the_bound_on_what_is_added_holds() {
        let mut event = AuditEvent::builder("acme", "shop", "order.update", "order", "42").build().unwrap();
        let before = auditstream_schemas::encoded_len(&event);
        let for_event = context().for_event();
        for_event.apply(&mut event);
        event.validate().unwrap();
        let added = auditstream_schemas::encoded_len(&event) - before;
        assert!(added > 60 && added <= for_event.bytes(), "{added} {}", for_event.bytes());
    }

    #[test]
    fn headers_are_bounded_and_cleaned() {
        let text = |bytes: &[u8], bound| bounded_text(&HeaderValue::from_bytes(bytes).unwrap(), bound);
        assert_eq!(text(b"abc", 2).as_deref(), Some("ab"));
        assert_eq!(text("aé".as_bytes(), 2).as_deref(), Some("a"));
        assert_eq!(text(b"a\xff", 10).as_deref(), Some("a\u{fffd}"));
        assert!(text(&[0xff; 100], 100).unwrap().len() <= 100);
        assert_eq!(text(b"", 10), None);
        let id = |text: &str| identifier(&HeaderValue::from_str(text).unwrap());
        assert_eq!(id("a-1").as_deref(), Some("a-1"));
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_actor_stays_and_a_made_id_does_too() {
        let context = context();
        assert!(!context.set_actor(Actor::user("u-9")));
        let long = Actor { id: Some("é".repeat(300)), name: Some(String::new()), ..Actor::user("") };
        let cut = within_limits(long);
        assert_eq!((cut.id.unwrap().len(), cut.name), (512, None));
        assert_eq!(context.actor(), Some(&Actor::user("u-7")));
        let shown = format!("{context:?}");
        assert!(!shown.contains("u-7") && !shown.contains("2001"), "{shown}");
        let mut seen = Seen { request_id: Some(HeaderValue::from_static("a b")), ..nothing() };
        seen.user_agent = None;
        let made = RequestContext::new(seen, None);
        assert_eq!(made.request_id().len(), 36);
        assert_eq!(made.request_id(), made.clone().request_id());
        assert!(made.set_actor(Actor::user("u-1")) && made.for_event().actor.is_some());
    }

    fn nothing() -> Seen {
        Seen {
            ip: None,
            method: Method::GET,
            path: None,
            user_agent: None,
            user_agent_bytes: 0,
            request_id: None,
            correlation_id: None,
            traceparent: None,
        }
    }
}
