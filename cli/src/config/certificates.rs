//! Which files with certificates the configuration names.

use std::path::PathBuf;

use auditstream_consumer::CertificateFile;
use auditstream_store::CertificateKind::{Authorities, Own};

use super::Settings;

impl Settings {
    /// For the metrics that say when they end.
    pub(crate) fn certificates(&self) -> Vec<CertificateFile> {
        let properties = self.client_properties();
        let kafka = |name: &str| properties.get(name).map(PathBuf::from);
        let clickhouse = &self.clickhouse.tls;
        let registry = self.registry.as_ref().and_then(|registry| registry.ca_file.clone());
        let named = [
            ("kafka.ssl_ca_location", kafka("ssl.ca.location"), Authorities),
            ("kafka.ssl_certificate_location", kafka("ssl.certificate.location"), Own),
            ("clickhouse.ca_location", clickhouse.ca_location.clone(), Authorities),
            ("clickhouse.certificate_location", clickhouse.certificate_location.clone(), Own),
            ("schema.registry_ca_location", registry, Authorities),
        ];
        let named = named.into_iter().filter_map(|(setting, file, kind)| Some((setting, file?, kind)));
        named.map(|(setting, file, kind)| CertificateFile { setting, file, kind }).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use crate::config::Settings;
    use crate::config::raw::Raw;

    #[test]
    fn only_files_that_are_named_are_watched() {
        let of = |file: &str| {
            let settings = Settings::from_raw(&Raw::read(Some(file), std::iter::empty())).unwrap();
            settings.certificates().iter().map(|file| file.setting).collect::<Vec<_>>()
        };
        assert!(of("").is_empty());
        let file = "[kafka]\nsecurity_protocol = \"ssl\"\nssl_ca_location = \"/a.pem\"\nssl_certificate_location = \"/b.pem\"\nssl_key_location = \"/c.pem\"\n";
        assert_eq!(of(file), ["kafka.ssl_ca_location", "kafka.ssl_certificate_location"]);
    }
}
