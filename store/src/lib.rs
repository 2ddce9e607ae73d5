//! ClickHouse: its tables, what goes into them, who may do what, and what operators ask.
//!
//! - [`Store`] is the handle; [`Store::migrate`] makes the tables, [`Store::check_tables`] compares them with what this version writes.
//! - [`event_body`] turns decoded batches into the bytes of an insert, [`Store::insert_events`] sends them.
//! - [`ErrorClass`] says what a failure means: again, look for the bad rows, or stop.
//! - [`ROLES`] defines the roles, [`GUARDED`] whose rows a table holds, [`Analyst`] is one person's account, [`Store::stats`] answers the figures.
//!
//! Promises: every call has a timeout; an insert that answered `Ok` is in the table; the same body may be sent again at any time; no error holds
//! a row's values.

mod analysts;
mod archive;
mod bisect;
mod blame;
mod body;
mod certificates;
mod client;
mod cluster;
mod columns;
mod config;
mod custom_view;
mod ddl;
mod dead_letters;
mod errors;
pub mod faults;
mod find;
mod flatten;
mod health;
mod holds;
mod ingest;
mod lock;
mod migrate;
mod migration_states;
mod migrations;
mod objects;
mod pauses;
mod policies;
mod queries;
mod replicas;
mod retention;
mod roles;
mod rows;
mod shape;
mod target;
#[cfg(test)]
mod testing;
mod tls;
mod words;

pub use analysts::{Analyst, AnalystError, Analysts, PasswordHash};
pub use archive::{ArchivedColumn, Fingerprint, PIECE_ROWS, PartitionOnDisk, Piece, Staging};
pub use bisect::{MAX_REFUSED, RefusedRow};
pub use body::{EventBody, event_body};
pub use certificates::{CertificateKind, certificate_expiry};
pub use client::Store;
pub use cluster::{NoClusterForm, statements_for};
pub use columns::{Column, EVENT_COLUMNS, Source};
pub use config::{Config, ConfigError, Secret};
pub use custom_view::{CustomViewError, custom_view};
pub use dead_letters::{Action, DeadLetter, DeadLetterFilter, RETRIES_HEADER};
pub use errors::{CallError, ErrorClass, InsertError};
pub use flatten::BodyError;
pub use health::{Disk, Recent, ServerState, SettingState, TableState};
pub use holds::{Hold, Overdue, RetentionError};
pub use migrate::{MigrateError, MigrateOptions, MigrateReport};
pub use migration_states::{MigrationState, MigrationStatus};
pub use migrations::{MIGRATIONS, Migration};
pub use objects::{ANALYST_OBJECTS, AnalystObject};
pub use pauses::{Pause, PauseAction};
pub use policies::{ALL_TENANTS, GUARDED, Guarded, KEY_READERS, TenantOf, Tenants};
pub use queries::{Gap, PartitionTotals, StoreStats};
pub use replicas::{Replica, ReplicaState};
pub use retention::{Class, HoldScope, MOST_DAYS, Retention, RuleError, Rules};
pub use roles::{ROLES, Role, RolesOutcome, local_users_xml, roles_sql, service};
pub use rows::{DeadLetterRow, LedgerRow};
pub use shape::ShapeError;
pub use target::Target;
pub use tls::{Tls, connector};
