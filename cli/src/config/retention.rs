//! `[retention]`: what is kept how long.

use auditstream_store::{Retention, Rules};

use super::settings::Checker;

pub(super) fn settings(check: &mut Checker<'_>) -> Retention {
    let rules = check.text("retention.rules").parse().unwrap_or_else(|error| {
        check.problem("retention.rules", format!("{error}"));
        Rules::default()
    });
    // The keys' bounds have proven that they fit.
    let days = |path: &str| u32::try_from(check.size(path)).unwrap_or_default();
    Retention {
        rules,
        default_days: days("retention.default_days"),
        dead_letter_days: days("retention.dead_letter_days"),
    }
}
