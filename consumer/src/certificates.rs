//! When the certificates end that the worker was given, as metrics. The connections use what was in the files at the start, so a file that was renewed
//! counts from the next start on: an alert that went away with the file's renewal would hide a worker that nobody has restarted. A file that is gone, or
//! ends earlier now, counts at once: the next start would meet it.

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

/// Files, and when each ended as it was at the start.
#[derive(Debug)]
pub(crate) struct Certificates(Vec<(CertificateFile, i64)>);

impl Certificates {
    /// Reads the files, as the connections do.
    pub(crate) fn new(files: Vec<CertificateFile>) -> Self {
        let at_start = |file: CertificateFile| {
            let end = file.end();
            (file, end)
        };
        Self(files.into_iter().map(at_start).collect())
    }
}

impl CertificateFile {
    /// Seconds since 1970; 0 when the file can't be used.
    fn end(&self) -> i64 {
        certificate_expiry(&self.file, self.kind).unwrap_or(0)
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "certificate_expiry_timestamp",
            "When a certificate ends, since 1970, by the setting that names its file: as at the start, or as now when that is earlier; 0 when it can't be used",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        self.0.iter().try_for_each(|(file, at_start)| {
            let end = file.end().min(*at_start);
            ConstGauge::new(end).encode(family.encode_family(&[("setting", file.setting)])?)
        })
    }
}
