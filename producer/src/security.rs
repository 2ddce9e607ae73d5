//! What every Kafka client of auditstream has in common when it speaks TLS or SASL.

use rdkafka::config::ClientConfig;

/// Properties that no user may set: who speaks TLS checks the broker's certificate and the name in it.
pub const FIXED: [&str; 2] = ["ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification"];

/// Makes a client that speaks TLS check the broker's certificate and that it names the host that was asked for. Without effect on
/// one that speaks plaintext.
pub fn check_certificates(config: &mut ClientConfig) {
    let speaks_tls = config.get("security.protocol").is_some_and(|name| name.to_ascii_lowercase().ends_with("ssl"));
    if speaks_tls {
        config.set(FIXED[0], "https").set(FIXED[1], "true");
    }
}

/// Whether the client proves who it is by a token.
pub fn uses_tokens(config: &ClientConfig) -> bool {
    let is_oauth = |name| config.get(name).is_some_and(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER"));
    is_oauth("sasl.mechanism") || is_oauth("sasl.mechanisms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_checked_whatever_was_asked_for() {
        for protocol in ["ssl", "SASL_SSL"] {
            let mut config = ClientConfig::new();
            config.set("security.protocol", protocol).set(FIXED[0], "none").set(FIXED[1], "false");
            check_certificates(&mut config);
            assert_eq!([config.get(FIXED[0]), config.get(FIXED[1])], [Some("https"), Some("true")]);
        }
        let mut plain = ClientConfig::new();
        check_certificates(plain.set("security.protocol", "sasl_plaintext"));
        assert_eq!(plain.get(FIXED[0]), None);
    }
}
