//! Certificates for the tests of TLS, the listeners of Kafka that use them, and a proxy that puts TLS in front of ClickHouse.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use auditstream_stack::{KafkaListener, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::wait::block_on;

/// Kafka's listener that speaks TLS and asks for a client's certificate.
pub const MUTUAL: &str = "MUTUAL";
/// Kafka's listener with TLS and SCRAM-SHA-512, for [`SCRAM_USER`].
pub const SCRAM: &str = "SCRAM";
/// Kafka's listener with TLS and OAUTHBEARER; it takes unsigned tokens.
pub const TOKENS: &str = "TOKENS";
/// Kafka's listener whose certificate names another host.
pub const STRANGER: &str = "STRANGER";
/// Who may come to [`SCRAM`], with the password.
pub const SCRAM_USER: (&str, &str) = ("audit-worker", "correct horse battery staple 42");

/// Names in the certificates of servers that are who they say they are.
const OURS: [&str; 2] = ["localhost", "127.0.0.1"];

/// An authority that signs certificates. Its own is self-signed.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key (PKCS#8).
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one that nobody trusts yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// The one that signed the certificates of the shared Kafka.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| Self::new("auditstream tests"))
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `names`: hosts and addresses.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 4096)
    }

    /// A certificate for `names` that ends when the year `end` begins (UTC).
    #[must_use]
    pub fn issue_until(&self, names: &[&str], end: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names that a certificate can hold");
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate that names this machine.
    #[must_use]
    pub fn issue_ours(&self) -> Identity {
        self.issue(&OURS)
    }
}

impl Identity {
    /// Writes both to `folder`; the paths of certificate and key.
    #[must_use]
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
        std::fs::write(&paths.0, &self.certificate).expect("the test's folder can be written");
        std::fs::write(&paths.1, &self.key).expect("the test's folder can be written");
        paths
    }
}

/// The shared stack's Kafka also listens with TLS in all ways that the tests need.
pub(crate) fn with_listeners(options: Options) -> Options {
    let authority = Authority::shared();
    let keys = |identity: Identity| {
        [
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.key", identity.key),
            ("ssl.keystore.certificate.chain", identity.certificate),
        ]
    };
    let listener = |name: &str, protocol: &str, identity: Identity, more: &[(&str, &str)]| KafkaListener {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        settings: keys(identity)
            .into_iter()
            .chain(more.iter().map(|&(key, value)| (key, value.to_owned())))
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    };
    let trusted = authority.certificate();
    let mutual = [
        ("ssl.client.auth", "required"),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.certificates", trusted.as_str()),
    ];
    let scram = [
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512"),
        ("scram-sha-512.sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required;"),
    ];
    let tokens = [
        ("sasl.enabled.mechanisms", "OAUTHBEARER"),
        (
            "oauthbearer.sasl.jaas.config",
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";",
        ),
        (
            "oauthbearer.sasl.server.callback.handler.class",
            "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler",
        ),
    ];
    let kafka_listeners = vec![
        listener(MUTUAL, "SSL", authority.issue_ours(), &mutual),
        listener(SCRAM, "SASL_SSL", authority.issue_ours(), &scram),
        listener(TOKENS, "SASL_SSL", authority.issue_ours(), &tokens),
        listener(STRANGER, "SSL", authority.issue(&["kafka.example"]), &[]),
    ];
    let (user, password) = SCRAM_USER;
    Options { kafka_listeners, kafka_scram_users: vec![(user.to_owned(), password.to_owned())], ..options }
}

/// An unsigned token (`alg` `none`) for `subject` that ends `seconds` from now; in the past when negative.
#[must_use]
pub fn unsigned_token(subject: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs() as i64;
    let claims = serde_json::json!({ "sub": subject, "iat": now - 120, "exp": now + seconds });
    format!("{}.{}.", base64url(r#"{"alg":"none"}"#), base64url(&claims.to_string()))
}

/// RFC 4648, section 5, without padding.
fn base64url(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        (0..=chunk.len()).for_each(|at| out.push(char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    out
}

/// A proxy on loopback that takes TLS and passes on what comes, until dropped.
#[derive(Debug)]
pub struct TlsProxy {
    address: SocketAddr,
    seen: Arc<Seen>,
    _task: Accepting,
}

/// What a proxy's connections share.
#[derive(Debug, Default)]
struct Seen {
    /// The certificate of the client that came last, DER.
    client: Mutex<Option<CertificateDer<'static>>>,
    cut: Notify,
}

/// Ends with the proxy.
#[derive(Debug)]
struct Accepting(tokio::task::JoinHandle<()>);

impl TlsProxy {
    /// In front of `upstream` (`HOST:PORT`), as `identity`. With `clients`, who comes must show a certificate which that authority signed.
    #[must_use]
    pub fn start(upstream: &str, identity: &Identity, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(der(&authority.certificate())).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let config = builder.with_single_cert(vec![der(&identity.certificate)], key).expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (upstream, seen) = (upstream.to_owned(), Arc::<Seen>::default());
        let sees = Arc::clone(&seen);
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let accept = async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), socket, upstream.clone(), Arc::clone(&sees)));
            }
        };
        let task = block_on(async { Accepting(tokio::spawn(accept)) });
        Self { address, seen, _task: task }
    }

    /// `https://HOST:PORT`, with the host as said.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// Whether the client that came last showed this certificate.
    #[must_use]
    pub fn was_shown(&self, identity: &Identity) -> bool {
        let client = self.seen.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.as_ref() == Some(&der(&identity.certificate))
    }

    /// Ends all connections, and forgets who came last.
    pub fn cut(&self) {
        *self.seen.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.seen.cut.notify_waiters();
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pass(acceptor: TlsAcceptor, socket: TcpStream, upstream: String, seen: Arc<Seen>) {
    let cut = seen.cut.notified();
    // Whoever refuses the certificate hangs up here.
    let Ok(mut inside) = acceptor.accept(socket).await else { return };
    let shown = inside.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    *seen.client.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    let Ok(mut outside) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        () = cut => {}
        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}
