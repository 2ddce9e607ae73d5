//! When the certificates end that the worker was given, as metrics: read from the files whenever they are asked for, so that a renewed one shows at once.

use std::fmt;
use std::path::PathBuf;

use auditstream_store::{CertificateKind, certificate_expiry};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// A file with certificates.
#[derive(Clone, Debug)]
pub struct CertificateFile {
    /// The key of the configuration that names it, such as `kafka.ssl_ca_location`.
    pub setting: &'static str,
    /// The file (PEM).
    pub file: PathBuf,
    /// Whose they are.
    pub kind: CertificateKind,
}

#[derive(Debug)]
pub(crate) struct Certificates(pub(crate) Vec<CertificateFile>);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "certificate_expiry_timestamp",
            "When a certificate ends, since 1970, by the setting that names its file; 0 when the file can't be used",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        self.0.iter().try_for_each(|CertificateFile { setting, file, kind }| {
            let end = certificate_expiry(file, *kind).unwrap_or(0);
            ConstGauge::new(end).encode(family.encode_family(&[("setting", *setting)])?)
        })
    }
}
