//! What the demo, the benchmarks and the integration tests share.
//!
//! - [`load`]: events by the million, each a function of a seed and an index, and their way onto the topic with a list of what was acknowledged.
//! - [`oracle`]: compares what was acknowledged with what is stored.
//! - [`sources`]: real input: the machine's package history and git histories as audit events.
//! - [`clickhouse`], [`target`], [`worker`], [`process`]: reach the stack, run workers as processes, and measure them.
//! - [`results`]: what a benchmark leaves behind for the report; [`report`] makes it.
//! - [`topic`], [`versions`]: what the broker holds, and who took part.
//! - [`family`]: what a server of many processes has used.
//! - [`table`]: answers as text that fits a terminal.

pub mod clickhouse;
pub mod family;
pub mod load;
pub mod oracle;
pub mod orders;
pub mod process;
pub mod report;
pub mod results;
pub mod sources;
pub mod table;
pub mod target;
pub mod topic;
pub mod versions;
pub mod worker;
