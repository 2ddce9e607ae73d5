//! A schema registry that answers as a test tells it, over real HTTP on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{StatusCode, Uri};
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
    /// The id of each subject's one schema.
    subjects: HashMap<String, u32>,
    /// What the next subject gets.
    next_id: u32,
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
            let router = Router::new().fallback(move |uri: Uri| answer(script, uri));
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

    /// The id of the schema of a subject.
    ///
    /// # Panics
    /// Never in a test that has not failed.
    #[must_use]
    pub fn subject(&self, name: &str) -> Option<u32> {
        self.script.lock().expect("no panic holds it").subjects.get(name).copied()
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

/// `POST /subjects/NAME` looks up, `POST /subjects/NAME/versions` registers; every schema of a subject is the same one here.
fn of_subject(script: &mut Script, path: &str) -> Response {
    let (name, registers) = match path.split_once('/') {
        Some((name, "versions")) => (name, true),
        _ => (path, false),
    };
    let known = script.subjects.get(name).copied();
    let id = if registers { known.or(Some(script.next_id)) } else { known };
    let Some(id) = id else {
        let missing = json!({ "error_code": 40401, "message": "no such subject" });
        return (StatusCode::NOT_FOUND, missing.to_string()).into_response();
    };
    if known.is_none() {
        script.subjects.insert(name.to_owned(), id);
        script.next_id += 1;
    }
    json!({ "subject": name, "id": id, "version": 1 }).to_string().into_response()
}

async fn answer(script: Arc<Mutex<Script>>, uri: Uri) -> Response {
    if let Some(subject) = uri.path().strip_prefix("/apis/ccompat/v7/subjects/") {
        return of_subject(&mut script.lock().expect("no panic holds it"), subject);
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
