//! An OpenTelemetry collector as far as a test needs one: takes OTLP over HTTP/1.1 with protobuf, and keeps the spans.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
pub use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// A span with what its resource says.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Attributes of the resource, as text.
    pub resource: HashMap<String, String>,
    /// The span.
    pub span: Span,
}

impl Collected {
    /// An attribute of the span, as text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<String> {
        texts(&self.span.attributes).remove(name)
    }

    /// What its links name: trace and span ids in hexadecimal digits.
    #[must_use]
    pub fn links(&self) -> Vec<(String, String)> {
        self.span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
    }
}

/// Listens on a port of its own until the process ends.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Collected>>>,
}

impl Collector {
    /// Starts to listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // A connection that ends in the middle is the client's business.
                std::thread::spawn(move || while serve(&stream, &kept).is_some() {});
            }
        });
        Self { address, spans }
    }

    /// Its endpoint, for `telemetry.otlp_endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span that came so far, in the order in which they came.
    #[must_use]
    pub fn spans(&self) -> Vec<Collected> {
        self.spans.lock().expect("no panic holds it").clone()
    }

    /// Those called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Collected> {
        self.spans().into_iter().filter(|collected| collected.span.name == name).collect()
    }
}

/// One request and its answer.
fn serve(stream: &TcpStream, kept: &Mutex<Vec<Collected>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let is_traces = line.starts_with("POST /v1/traces HTTP/1.1");
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(&*body).ok().filter(|_| is_traces);
    let status = if request.is_some() { "200 OK" } else { "400 Bad Request" };
    for resource_spans in request.unwrap_or_default().resource_spans {
        let resource = texts(&resource_spans.resource.unwrap_or_default().attributes);
        let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let collected = spans.map(|span| Collected { resource: resource.clone(), span });
        kept.lock().expect("no panic holds it").extend(collected);
    }
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n").ok()
}

fn texts(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    };
    attributes.iter().filter_map(|attribute| Some((attribute.key.clone(), text(attribute)?))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
