//! A schema registry that answers as a test tells it, over real HTTP on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpSocket;

use crate::wait::block_on;

/// What a request for a schema is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryAnswer {
    /// The schema's text.
    Schema(String),
    /// The registry's own 404.
    Missing,
    /// The 404 of a proxy: a page.
    ProxyMissing,
    /// This status, with an error in JSON as registries send it.
    Status(u16),
    /// Status 200 with a page.
    Garbage,
    /// Nothing, for as long as the client waits.
    Silence,
}

#[derive(Debug, Default)]
struct Script {
    /// For each id; for all others `otherwise`.
    answers: HashMap<u32, RegistryAnswer>,
    otherwise: Option<RegistryAnswer>,
    /// Requests seen, by path.
    asked: HashMap<String, usize>,
    /// Each subject's versions: id and schema.
    subjects: HashMap<String, Vec<(u32, String)>>,
    /// What the next new schema gets.
    next_id: u32,
    /// Whether a new version of a subject that has some is refused as incompatible.
    refuses: bool,
}

/// The registry. Its port is closed until [`ScriptedRegistry::open`].
#[derive(Debug)]
pub struct ScriptedRegistry {
    address: SocketAddr,
    socket: Mutex<Option<TcpSocket>>,
    script: Arc<Mutex<Script>>,
}

impl ScriptedRegistry {
    /// A registry that refuses connections. Its port is its own already.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn closed() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = socket.local_addr().expect("a bound socket");
        Self { address, socket: Mutex::new(Some(socket)), script: Arc::default() }
    }

    /// A registry that answers every id with `otherwise`.
    #[must_use]
    pub fn answering(otherwise: RegistryAnswer) -> Self {
        let registry = Self::closed();
        registry.answer_all(otherwise);
        registry.open();
        registry
    }

    /// Takes connections from now on.
    ///
    /// # Panics
    /// When it does already.
    pub fn open(&self) {
        let socket = self.socket.lock().expect("no panic holds it").take().expect("it is open already");
        let script = Arc::clone(&self.script);
        block_on(async move {
            let listener = socket.listen(64).expect("a listener");
            let router =
                Router::new().fallback(move |method: Method, uri: Uri, body: String| answer(script, method, uri, body));
            tokio::spawn(async move { axum::serve(listener, router).await });
        });
    }

    /// Its base URL, with a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/apis/ccompat/v7", self.address)
    }

    /// Answers for `id` from now on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn answer(&self, id: u32, answer: RegistryAnswer) {
        self.script.lock().expect("no panic holds it").answers.insert(id, answer);
    }

    /// Answers for every id that has none of its own from now on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn answer_all(&self, answer: RegistryAnswer) {
        self.script.lock().expect("no panic holds it").otherwise = Some(answer);
    }

    /// What is registered from now on has ids from `first` on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn registers_from(&self, first: u32) {
        self.script.lock().expect("no panic holds it").next_id = first;
    }

    /// Registers schemas as the next versions of a subject.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn has(&self, subject: &str, schemas: &[&str]) {
        let mut script = self.script.lock().expect("no panic holds it");
        for schema in schemas {
            script.next_id += 1;
            let version = (script.next_id, (*schema).to_owned());
            script.subjects.entry(subject.to_owned()).or_default().push(version);
        }
    }

    /// Refuses new versions of subjects that have some, as incompatible, from now on.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    pub fn refuse_versions(&self) {
        self.script.lock().expect("no panic holds it").refuses = true;
    }

    /// The id of a subject's first schema.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    #[must_use]
    pub fn subject(&self, name: &str) -> Option<u32> {
        self.script.lock().expect("no panic holds it").subjects.get(name)?.first().map(|(id, _)| *id)
    }

    /// How often `id` was asked for.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    #[must_use]
    pub fn asked(&self, id: u32) -> usize {
        self.script.lock().expect("no panic holds it").asked.get(&path(id)).copied().unwrap_or_default()
    }
}

fn path(id: u32) -> String {
    format!("/apis/ccompat/v7/schemas/ids/{id}")
}

/// `POST /subjects/NAME` looks up, `POST /subjects/NAME/versions` registers, `GET /subjects/NAME/versions[/N]` tells. A schema is known by its text.
fn of_subject(script: &mut Script, method: &Method, path: &str, body: &str) -> Response {
    let error = |status: StatusCode, code: u32, message: &str| {
        (status, json!({ "error_code": code, "message": message }).to_string()).into_response()
    };
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    let known = script.subjects.get(name).cloned().unwrap_or_default();
    let told = |(index, (id, schema)): (usize, &(u32, String))| json!({ "subject": name, "id": id, "version": index + 1, "schema": schema });
    if method == Method::GET {
        if known.is_empty() {
            return error(StatusCode::NOT_FOUND, 40401, "no such subject");
        }
        let Some(number) = rest.strip_prefix("versions/") else {
            return json!((1..=known.len()).collect::<Vec<_>>()).to_string().into_response();
        };
        let wanted = if number == "latest" { Some(known.len()) } else { number.parse().ok() };
        return match known.iter().enumerate().find(|(index, _)| Some(index + 1) == wanted) {
            Some(version) => told(version).to_string().into_response(),
            None => error(StatusCode::NOT_FOUND, 40402, "no such version"),
        };
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let schema = body["schema"].as_str().unwrap_or_default();
    if let Some(version) = known.iter().enumerate().find(|(_, (_, text))| text == schema) {
        return told(version).to_string().into_response();
    }
    match rest {
        "versions" if script.refuses && !known.is_empty() => error(StatusCode::CONFLICT, 409, "incompatible"),
        "versions" => {
            let id = script.next_id;
            script.next_id += 1;
            script.subjects.entry(name.to_owned()).or_default().push((id, schema.to_owned()));
            json!({ "id": id }).to_string().into_response()
        }
        _ if known.is_empty() => error(StatusCode::NOT_FOUND, 40401, "no such subject"),
        _ => error(StatusCode::NOT_FOUND, 40403, "no such schema"),
    }
}

async fn answer(script: Arc<Mutex<Script>>, method: Method, uri: Uri, body: String) -> Response {
    if let Some(subject) = uri.path().strip_prefix("/apis/ccompat/v7/subjects/") {
        return of_subject(&mut script.lock().expect("no panic holds it"), &method, subject, &body);
    }
    let found = {
        let mut script = script.lock().expect("no panic holds it");
        *script.asked.entry(uri.path().to_owned()).or_default() += 1;
        let id = uri.path().rsplit_once('/').and_then(|(_, id)| id.parse().ok()).filter(|&id| path(id) == uri.path());
        match id {
            // Another path: the client is wrong, and so will the test be.
            None => Some(RegistryAnswer::ProxyMissing),
            Some(id) => script.answers.get(&id).or(script.otherwise.as_ref()).cloned(),
        }
    };
    let page = || Html("<html><body>Not what you are looking for</body></html>");
    let error = |status: u16, code: u32| {
        let status = StatusCode::from_u16(status).expect("a status");
        (status, json!({ "error_code": code, "message": "as the test wants it" }).to_string()).into_response()
    };
    match found {
        Some(RegistryAnswer::Schema(schema)) => json!({ "schema": schema }).to_string().into_response(),
        Some(RegistryAnswer::Missing) => error(404, 40403),
        Some(RegistryAnswer::Status(status)) => error(status, 50001),
        Some(RegistryAnswer::ProxyMissing) => (StatusCode::NOT_FOUND, page()).into_response(),
        Some(RegistryAnswer::Garbage) => page().into_response(),
        Some(RegistryAnswer::Silence) | None => std::future::pending().await,
    }
}
