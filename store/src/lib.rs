//! ClickHouse.
mod body;
mod client;
mod columns;
mod config;
mod errors;
mod flatten;
mod ingest;
mod rows;
mod shape;

pub use body::{EventBody, event_body};
pub use client::Store;
pub use columns::{Column, EVENT_COLUMNS, Source};
pub use config::{Config, ConfigError, Secret};
pub use errors::{CallError, ErrorClass, InsertError};
pub use flatten::BodyError;
pub use rows::{DeadLetterRow, LedgerRow};
pub use shape::ShapeError;
