//! The layer that gives each request its context.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use auditstream_schemas::{Actor, limits};
use axum::extract::{ConnectInfo, MatchedPath};
use http::request::Parts;
use http::{HeaderName, Request, header};
use tower_layer::Layer;
use tower_service::Service;

use super::cidr::{IpRange, NotARange};
use super::forwarded::{ForwardedHeader, client_ip};
use super::{CURRENT, InContext, Inner, RequestContext, Seen};
use crate::headers::TraceParent;

type ActorOf = dyn Fn(&Parts) -> Option<Actor> + Send + Sync;

/// A tower layer that gives each request a [`RequestContext`].
///
/// **Where to put it.** With axum's `Router::layer`, behind all routes and inside of nothing else that wraps the whole
/// router: axum puts the path template (`/orders/{id}`) into the request when it has found the route, which is after a layer
/// around the router (`ServiceBuilder::service(router)`) has run and before one of `Router::layer` does. In a nested router the
/// template is that of the whole path if the layer is on the outer router. A layer added later runs earlier: whatever
/// authenticates belongs after this one if [`AuditContextLayer::actor`] reads what it leaves in the request.
///
/// **The peer's address** comes from axum's [`ConnectInfo`]: serve with
/// `app.into_make_service_with_connect_info::<SocketAddr>()`. Without it no client address is known, and no header is
/// believed.
#[derive(Clone)]
pub struct AuditContextLayer {
    trusted: Arc<[IpRange]>,
    header: ForwardedHeader,
    user_agent_bytes: usize,
    actor: Option<Arc<ActorOf>>,
}

impl Default for AuditContextLayer {
    fn default() -> AuditContextLayer {
        AuditContextLayer::new()
    }
}

impl AuditContextLayer {
    /// Trusts no proxy: the client is who opened the connection. User agents are cut at 512 bytes.
    pub fn new() -> AuditContextLayer {
        let header = ForwardedHeader::default();
        AuditContextLayer { trusted: Arc::new([]), header, user_agent_bytes: 512, actor: None }
    }

    /// The ranges in which the proxies stand, as addresses or in CIDR notation. Only what these write about the client is
    /// believed. Name no range in which others can connect from.
    ///
    /// # Errors
    /// The first text that is no range.
    pub fn trust_proxies<'a>(self, ranges: impl IntoIterator<Item = &'a str>) -> Result<AuditContextLayer, NotARange> {
        let trusted: Result<Vec<IpRange>, NotARange> = ranges.into_iter().map(str::parse).collect();
        Ok(AuditContextLayer { trusted: trusted?.into(), ..self })
    }

    /// The one header that the proxies write the client's address into. The other one is never read.
    #[must_use]
    pub fn forwarded_header(self, header: ForwardedHeader) -> AuditContextLayer {
        AuditContextLayer { header, ..self }
    }

    /// How many bytes of a user agent are kept, at most 2,048.
    #[must_use]
    pub fn user_agent_bytes(self, bytes: usize) -> AuditContextLayer {
        AuditContextLayer { user_agent_bytes: bytes.min(limits::USER_AGENT_BYTES), ..self }
    }

    /// Who is calling, told from the request's head, extensions included. Called once a request, so it should be cheap;
    /// what is known only later goes to [`RequestContext::set_actor`].
    #[must_use]
    pub fn actor(self, actor: impl Fn(&Parts) -> Option<Actor> + Send + Sync + 'static) -> AuditContextLayer {
        AuditContextLayer { actor: Some(Arc::new(actor)), ..self }
    }

    fn context(&self, parts: &Parts) -> RequestContext {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let value = |name: HeaderName| parts.headers.get(name).cloned();
        let traceparent = parts.headers.get("traceparent").and_then(|value| TraceParent::parse(value.to_str().ok()?));
        let seen = Seen {
            ip: client_ip(peer, &parts.headers, self.header, &self.trusted),
            method: parts.method.clone(),
            path: parts.extensions.get::<MatchedPath>().cloned(),
            user_agent: value(header::USER_AGENT),
            user_agent_bytes: self.user_agent_bytes,
            request_id: value(HeaderName::from_static("x-request-id")),
            correlation_id: value(HeaderName::from_static("x-correlation-id")),
            traceparent,
        };
        RequestContext::new(seen, self.actor.as_ref().and_then(|actor| actor(parts)))
    }
}

impl RequestContext {
    pub(super) fn new(seen: Seen, actor: Option<Actor>) -> RequestContext {
        let (fields, request_id) = (OnceLock::new(), OnceLock::new());
        let context = RequestContext(Arc::new(Inner { seen, fields, request_id, actor: OnceLock::new() }));
        if let Some(actor) = actor {
            context.set_actor(actor);
        }
        context
    }
}

impl fmt::Debug for AuditContextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditContextLayer")
            .field("trusted", &self.trusted)
            .field("header", &self.header)
            .field("user_agent_bytes", &self.user_agent_bytes)
            .field("actor", &self.actor.is_some())
            .finish()
    }
}

impl<S> Layer<S> for AuditContextLayer {
    type Service = AuditContext<S>;

    fn layer(&self, inner: S) -> AuditContext<S> {
        AuditContext { layer: self.clone(), inner }
    }
}

/// The service that [`AuditContextLayer`] makes.
#[derive(Clone, Debug)]
pub struct AuditContext<S> {
    layer: AuditContextLayer,
    inner: S,
}

impl<S, B> Service<Request<B>> for AuditContext<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = InContext<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> InContext<S::Future> {
        let (parts, body) = request.into_parts();
        let context = self.layer.context(&parts);
        let request = Request::from_parts(parts, body);
        // A service may work before its future is polled.
        let future = context.sync_scope(|| self.inner.call(request));
        CURRENT.scope(context, future)
    }
}
