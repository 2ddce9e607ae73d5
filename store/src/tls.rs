//! TLS to ClickHouse: which authorities are trusted, as whom we present ourselves, and what a refused certificate means.
//!
//! Promise: an `https://` URL is never spoken to without a certificate that a trusted authority signed for the URL's host.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// As the ClickHouse client's own connector has them: a server closes an idle connection after 3 s or later.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How `https://` is spoken. Without effect for `http://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust, instead of the system's.
    pub ca_location: Option<PathBuf>,
    /// PEM file of the certificate (and its chain) that we present when the server asks for one; with `key_location` only.
    pub certificate_location: Option<PathBuf>,
    /// PEM file of its private key, not encrypted.
    pub key_location: Option<PathBuf>,
}

/// A ClickHouse client that speaks TLS to `https://` URLs.
///
/// # Errors
/// As [`client_config`].
pub(crate) fn client(tls: &Tls) -> Result<clickhouse::Client, String> {
    let mut connector = HttpConnector::new();
    connector.set_keepalive(Some(TCP_KEEPALIVE));
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(client_config(tls)?)
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    let client = HyperClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE_TIMEOUT).build(connector);
    Ok(clickhouse::Client::with_http_client(client))
}

/// A connector for other servers than ClickHouse, with the same authorities: TLS for `https://` URLs, and `http://` ones only when `plain_http`, which
/// needs no authorities.
///
/// # Errors
/// The first file that can't be used, opening with its field's name; or `ca_location: ` when none is set and the system has no authorities.
pub fn connector(
    tls: &Tls,
    plain_http: bool,
    connect_timeout: Duration,
) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut tcp = HttpConnector::new();
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.enforce_http(false);
    let roots = if plain_http { RootCertStore::empty() } else { roots(tls.ca_location.as_deref())? };
    let builder = HttpsConnectorBuilder::new().with_tls_config(with_roots(tls, roots)?);
    let builder = if plain_http { builder.https_or_http() } else { builder.https_only() };
    Ok(builder.enable_http1().wrap_connector(tcp))
}

/// What rustls needs. Reads the files.
///
/// # Errors
/// The first file that can't be used, opening with its field's name.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    with_roots(tls, roots(tls.ca_location.as_deref())?)
}

fn with_roots(tls: &Tls, roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("url: no TLS: {error}"))?
        .with_root_certificates(roots);
    match (&tls.certificate_location, &tls.key_location) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(chain), Some(key_file)) => {
            let chain = certificates("certificate_location", chain)?;
            let key =
                PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable("key_location", key_file, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("certificate_location: does not go with key_location: {error}"))
        }
        (Some(_), None) => Err("key_location: must be set with certificate_location".to_owned()),
        (None, Some(_)) => Err("certificate_location: must be set with key_location".to_owned()),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            for certificate in certificates("ca_location", file)? {
                roots.add(certificate).map_err(|error| unusable("ca_location", file, &error))?;
            }
        }
        None => {
            // One odd certificate among the system's does not matter as long as others are there.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(
                    "ca_location: must be set for https, because this system has no certificate authorities".to_owned()
                );
            }
        }
    }
    Ok(roots)
}

fn certificates(field: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(format!("{field}: {} holds no PEM certificate", file.display())),
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(field, file, &error)),
    }
}

fn unusable(field: &str, file: &Path, error: &dyn StdError) -> String {
    format!("{field}: can't use {}: {error}", file.display())
}

/// Why TLS with `url` needs a human, when that is what `error` comes from: a certificate was refused, theirs or ours.
pub(crate) fn refusal(error: &(dyn StdError + 'static), url: &str) -> Option<String> {
    let why = match rustls_error(error)? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no trusted authority has signed it; clickhouse.ca_location names the authorities to trust".to_owned()
        }
        rustls::Error::InvalidCertificate(problem) => problem.to_string(),
        // The server closes with a word about the certificate that we showed, or did not show.
        rustls::Error::AlertReceived(alert) => {
            return Some(format!("clickhouse at {url} refuses our certificate, or wants one: {alert:?}"));
        }
        _ => return None,
    };
    Some(format!("the certificate of clickhouse at {url} is not accepted: {why}"))
}

/// The TLS error under `error`. An `io::Error` hides the error that it was made of from `source`.
fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner: Option<&'a (dyn StdError + Send + Sync + 'static)> =
            error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_that_can_not_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (pem, key) = (file("ca.pem", &made.cert.pem()), file("key.pem", &made.signing_key.serialize_pem()));
        let other = file("other.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        let junk = file("junk.pem", "nothing here");
        let problem = |tls: &Tls| client_config(tls).map(|_| ()).unwrap_err();

        let good =
            Tls { ca_location: Some(pem.clone()), certificate_location: Some(pem.clone()), key_location: Some(key) };
        client_config(&good).unwrap();
        let said = problem(&Tls { ca_location: Some("/nowhere".into()), ..good.clone() });
        assert!(said.starts_with("ca_location: can't use /nowhere: "), "{said}");
        let said = problem(&Tls { ca_location: Some(junk), ..good.clone() });
        assert!(said.starts_with("ca_location: ") && said.ends_with("holds no PEM certificate"), "{said}");
        let said = problem(&Tls { key_location: None, ..good.clone() });
        assert_eq!(said, "key_location: must be set with certificate_location");
        let said = problem(&Tls { certificate_location: None, ..good.clone() });
        assert_eq!(said, "certificate_location: must be set with key_location");
        let said = problem(&Tls { key_location: Some(other), ..good });
        assert!(said.starts_with("certificate_location: does not go with key_location"), "{said}");
    }

    #[test]
    fn a_refused_certificate_is_found_below_other_errors_and_a_broken_connection_is_not_one() {
        let nested = |error: rustls::Error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let said = refusal(&nested(rustls::Error::InvalidCertificate(CertificateError::Expired)), "https://ch:8443");
        assert!(said.is_some_and(|said| said.contains("https://ch:8443") && said.contains("xpired")));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(refusal(&nested(unknown), "https://ch").is_some_and(|said| said.contains("clickhouse.ca_location")));
        assert_eq!(refusal(&nested(rustls::Error::HandshakeNotComplete), "https://ch"), None);
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::ConnectionReset), "https://ch"), None);
    }
}
