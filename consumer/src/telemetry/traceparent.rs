//! The W3C `traceparent` header of a record (<https://www.w3.org/TR/trace-context/#traceparent-header>).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The header's name.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// `00-` 32 digits `-` 16 digits `-` 2 digits; later versions may go on after another dash.
const LENGTH: usize = 55;

/// The producer's span, or `None` when the value is not valid. A later version is read as far as it is known, as the standard asks.
pub(crate) fn parse(value: &[u8]) -> Option<SpanContext> {
    let (head, rest) = value.split_at_checked(LENGTH)?;
    let version: [u8; 1] = digits(&head[..2])?;
    let has_rest = !rest.is_empty();
    let is_known = match version[0] {
        0 => !has_rest,
        0xff => false,
        _ => !has_rest || rest[0] == b'-',
    };
    let has_dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    let (trace, span, flags) = (digits(&head[3..35])?, digits(&head[36..52])?, digits::<1>(&head[53..55])?);
    let context = SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::new(flags[0]),
        true,
        TraceState::NONE,
    );
    (is_known && has_dashes && context.is_valid()).then_some(context)
}

/// `2 * N` lower-case hexadecimal digits as bytes.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_valid_one_is_taken_apart() {
        let context = parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(!parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02").unwrap().is_sampled());
        for later in ["", "-more"] {
            let text = format!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03{later}");
            assert!(parse(text.as_bytes()).unwrap().is_sampled());
        }
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331+01",
            "\u{fc}0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
