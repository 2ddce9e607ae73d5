//! The audit event as Rust sees it: plain data with public fields, in the order of the Avro schema.
//!
//! The model promises nothing about its values by itself; [`AuditEvent::validate`] does (see `validate.rs`).
//! One rule makes storage exact without nullable columns: an optional string is `None` or not empty.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Declares an Avro enum: symbols in schema order, so that the discriminant is the wire index.
macro_rules! symbols {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $symbol:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All symbols, in schema order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The symbol as it stands in the schema, in JSON and in the table.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $symbol),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownSymbol;

            /// Takes exactly one of the symbols, upper case.
            fn from_str(text: &str) -> Result<Self, UnknownSymbol> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text).ok_or(UnknownSymbol)
            }
        }
    };
}

/// The text is none of the enum's symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of the known symbols")]
pub struct UnknownSymbol;

symbols! {
    /// The kind of an action, for questions over all services.
    Operation {
        /// Something came to be.
        Create = "CREATE",
        /// Something was looked at.
        Read = "READ",
        /// Something changed.
        Update = "UPDATE",
        /// Something was removed.
        Delete = "DELETE",
        /// None of the others.
        Other = "OTHER",
    }
}

symbols! {
    /// What sort of actor did it.
    ActorKind {
        /// A person.
        User = "USER",
        /// Another service.
        Service = "SERVICE",
        /// A program with an API key.
        ApiKey = "API_KEY",
        /// The system itself: a timer, a migration.
        System = "SYSTEM",
        /// Nobody that is known.
        Anonymous = "ANONYMOUS",
    }
}

symbols! {
    /// How an action ended.
    Outcome {
        /// It was done.
        Success = "SUCCESS",
        /// It was tried and failed.
        Failure = "FAILURE",
        /// It was not allowed.
        Denied = "DENIED",
    }
}

symbols! {
    /// Which lane of the producer carries the event.
    Priority {
        /// Never dropped.
        Critical = "CRITICAL",
        /// Goes to disk when memory is full.
        Standard = "STANDARD",
        /// Dropped and counted when memory is full.
        BestEffort = "BEST_EFFORT",
    }
}

impl Operation {
    /// The operation that the last word of an action names (`order.create`, `user.bulk_delete`); [`Operation::Other`] otherwise.
    pub fn of_action(action: &str) -> Self {
        let word = action.rsplit(['.', ':', '/']).next().unwrap_or(action);
        match word.strip_prefix("bulk_").unwrap_or(word) {
            "create" => Self::Create,
            "read" | "view" | "export" => Self::Read,
            "update" | "password_change" => Self::Update,
            "delete" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// Prints and parses RFC 3339. Any `i64` is held; [`AuditEvent::validate`] says what may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1900-01-01T00:00:00Z, the first instant of ClickHouse's `DateTime64(6)`
    /// (<https://clickhouse.com/docs/sql-reference/data-types/datetime64>).
    pub const MIN_STORABLE: Self = Self(-2_208_988_800_000_000);
    /// 2299-12-31T23:59:59.999999Z, the last one.
    pub const MAX_STORABLE: Self = Self(10_413_791_999_999_999);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The wall clock now, cut to microseconds.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// Whether ClickHouse's `DateTime64(6)` holds it exactly.
    pub const fn is_storable(self) -> bool {
        self.0 >= Self::MIN_STORABLE.0 && self.0 <= Self::MAX_STORABLE.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with six decimals at most; an instant beyond the years -9999 to 9999 prints as microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant}"),
            Err(_) => write!(f, "{} us since 1970-01-01T00:00:00Z", self.0),
        }
    }
}

/// The text is no RFC 3339 instant with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time with an offset, such as 2026-01-31T09:30:00.125Z")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    /// RFC 3339 with any offset; decimals past the sixth are cut off (towards the past).
    fn from_str(text: &str) -> Result<Self, NotATime> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        let micros = instant.as_nanosecond().div_euclid(1000);
        i64::try_from(micros).map(Self).map_err(|_| NotATime)
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// What sort of actor.
    pub kind: ActorKind,
    /// The actor's id in the tenant's directory.
    pub id: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// E-mail address.
    pub email: Option<String>,
    /// The session used.
    pub session_id: Option<String>,
}

impl Actor {
    /// An actor of a kind with nothing else known.
    pub const fn new(kind: ActorKind) -> Self {
        Self { kind, id: None, name: None, email: None, session_id: None }
    }

    /// A person with an id.
    pub fn user(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::new(ActorKind::User) }
    }
}

/// One changed value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Where in the entity, as a JSON pointer such as `/items/3/price`.
    pub path: String,
    /// The value before as JSON text; `None` when there was none (`Some("null")` is a JSON null).
    pub old: Option<String>,
    /// The value after as JSON text; `None` when there is none.
    pub new: Option<String>,
}

/// Where an event stands in its producer's sequence. Not part of the event's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProducerStamp {
    /// The producer instance; empty when nobody counts.
    pub id: String,
    /// Grows with each start of the instance.
    pub epoch: i64,
    /// Counts the events of one epoch, from 1.
    pub seq: i64,
}

/// One audit event. See `schemas/avro/audit_event.v1.avsc` for the meaning of each field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each field is documented in the Avro schema, the one place")]
pub struct AuditEvent {
    pub event_id: Uuid,
    pub occurred_at: Timestamp,
    pub tenant_id: String,
    pub service: String,
    pub environment: String,
    pub action: String,
    pub operation: Operation,
    pub entity_type: String,
    pub entity_id: String,
    pub entity_name: Option<String>,
    pub actor: Actor,
    pub on_behalf_of: Option<String>,
    pub outcome: Outcome,
    pub error_message: Option<String>,
    pub changes: Vec<Change>,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub correlation_id: Option<String>,
    pub trace_id: Option<String>,
    pub http_method: Option<String>,
    pub http_path: Option<String>,
    pub priority: Priority,
    /// A JSON object as text; `{}` when there is nothing.
    pub details: String,
    pub producer: ProducerStamp,
}

impl AuditEvent {
    /// The Kafka record key, `tenant/type/id`: all events of one entity share it, and no two entities do.
    ///
    /// `%` and `/` inside a part are percent-encoded (`%25`, `%2F`).
    pub fn key(&self) -> String {
        let mut key = String::new();
        self.push_key(&mut key);
        key
    }

    /// The same, at the end of `out`.
    pub fn push_key(&self, out: &mut String) {
        let parts = [&self.tenant_id, &self.entity_type, &self.entity_id];
        out.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + 2);
        for (i, part) in parts.into_iter().enumerate() {
            if i > 0 {
                out.push('/');
            }
            if !part.bytes().any(|byte| matches!(byte, b'%' | b'/')) {
                out.push_str(part);
                continue;
            }
            for c in part.chars() {
                match c {
                    '%' => out.push_str("%25"),
                    '/' => out.push_str("%2F"),
                    c => out.push(c),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn time_prints_and_parses() {
        let t: Timestamp = "2026-01-31T10:30:00.1234567+01:00".parse().unwrap();
        assert_eq!(t.to_string(), "2026-01-31T09:30:00.123456Z");
        assert_eq!(t.to_string().parse::<Timestamp>().unwrap(), t);
        assert_eq!("1900-01-01T00:00:00Z".parse::<Timestamp>().unwrap(), Timestamp::MIN_STORABLE);
        assert_eq!("2299-12-31T23:59:59.999999Z".parse::<Timestamp>().unwrap(), Timestamp::MAX_STORABLE);
        assert_eq!("1969-12-31T23:59:59.9999999Z".parse::<Timestamp>().unwrap().as_micros(), -1);
        for bad in ["", "yesterday", "2026-01-31", "2026-01-31T10:30:00", "2026-02-30T00:00:00Z"] {
            assert_eq!(bad.parse::<Timestamp>(), Err(NotATime), "{bad}");
        }
        assert!(Timestamp::from_micros(i64::MAX).to_string().contains("us since"));
    }

    #[test]
    fn keys_never_collide() {
        let event =
            |tenant: &str, kind: &str, id: &str| AuditEvent::builder(tenant, "s", "a", kind, id).build().unwrap().key();
        assert_eq!(event("acme", "order", "42"), "acme/order/42");
        assert_eq!(event("a/b", "c", "d%2F"), "a%2Fb/c/d%252F");
        assert_ne!(event("a/b", "c", "d"), event("a", "b/c", "d"));
    }

    #[test]
    fn operation_of_action() {
        for (action, operation) in [
            ("order.create", Operation::Create),
            ("bulk_delete", Operation::Delete),
            ("user.password_change", Operation::Update),
            ("export", Operation::Read),
            ("user.login", Operation::Other),
            ("", Operation::Other),
        ] {
            assert_eq!(Operation::of_action(action), operation, "{action}");
        }
    }

    #[test]
    fn symbols_round_trip() {
        for kind in ActorKind::ALL {
            assert_eq!(kind.as_str().parse::<ActorKind>(), Ok(*kind));
        }
        assert_eq!("user".parse::<ActorKind>(), Err(UnknownSymbol));
    }
}
