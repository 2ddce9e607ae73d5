//! Load: events that look like those of a real system, any number of them, the same ones for the same seed.
//!
//! [`Generator`] answers which event has a given index, with no state, so that threads and tests may ask in any order. [`send`] puts them on the
//! topic by way of the producer library and [`Acknowledged`] keeps the list of what the broker has.

mod acknowledged;
mod fill;
mod generator;
mod random;
mod send;
mod vocabulary;

pub use acknowledged::Acknowledged;
pub use generator::{Generator, Options};
pub(crate) use random::Random;
pub use send::{SendError, Sent, send};
