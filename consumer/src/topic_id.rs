//! The id that the brokers gave a topic when it was made. A topic that is deleted and made again under its name has another one.
//!
//! Offsets mean nothing without it: an offset of the deleted topic may lie inside the new one, and going on there would skip everything before it.
//! Each commit therefore says of which topic it speaks, in its metadata, and an assignment whose committed offset speaks of another topic starts
//! at the beginning.

use std::ffi::{CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as raw;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

/// In front of the id in a commit's metadata.
const PREFIX: &str = "topic-id=";
/// In front of that where a human has set the offset, with `auditstream consumer reset` or with Kafka's own tool, and the worker that goes on from there
/// has not come up to where the log ended then: `set=1042 topic-id=...`. As long as it stands there, the ledger does not say where reading goes on.
const SET: &str = "set";

/// A topic's id: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicId(String);

/// That a human has set the offset from which a partition is read, and how far what lies behind it is to be read again, whatever the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// Up to this offset: where the log ended when the offset was set, so nothing beyond it can have landed by then.
    Until(i64),
    /// Nobody has asked yet where the log ends.
    Unbounded,
}

impl Reread {
    /// Whether what lies at `offset` is to be read whatever the ledger says.
    pub fn covers(self, offset: i64) -> bool {
        match self {
            Self::Until(end) => offset < end,
            Self::Unbounded => true,
        }
    }
}

impl TopicId {
    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a commit of this topic's offsets carries.
    pub fn metadata(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// What an offset carries that a human has set, and each commit after it until reading has come up to the end: what has landed is read again.
    pub fn set_metadata(&self, reread: Reread) -> String {
        match reread {
            Reread::Until(end) => format!("{SET}={end} {PREFIX}{}", self.0),
            Reread::Unbounded => format!("{SET} {PREFIX}{}", self.0),
        }
    }

    /// Whether, and how far, a committed offset with this metadata asks for what has landed to be read again. What a worker has committed by itself does
    /// not; who sets an offset with Kafka's own tool, which knows no metadata, wants the same as who sets it with ours.
    pub fn reread(&self, metadata: &str) -> Option<Reread> {
        match split(metadata) {
            Some((set, id)) => set.filter(|_| id == self.0),
            None => Some(Reread::Unbounded),
        }
    }

    /// Whether a committed offset with this metadata speaks of another topic than this one. Metadata of another form is somebody else's, such as of a
    /// human who set the offset with Kafka's own tool: he means this topic.
    pub fn is_foreign(&self, metadata: &str) -> bool {
        split(metadata).is_some_and(|(_, id)| id != self.0)
    }
}

/// The mark and the id in metadata that this program wrote.
fn split(metadata: &str) -> Option<(Option<Reread>, &str)> {
    if let Some(id) = metadata.strip_prefix(PREFIX) {
        return Some((None, id));
    }
    let (mark, rest) = metadata.split_once(' ')?;
    let id = rest.strip_prefix(PREFIX)?;
    let end = mark.strip_prefix(SET)?;
    let reread = match end.strip_prefix('=') {
        Some(end) => Reread::Until(end.parse().ok()?),
        None if end.is_empty() => Reread::Unbounded,
        None => return None,
    };
    Some((Some(reread), id))
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks the brokers for a topic's id, at most for `timeout`. `None` when there is no such topic, or when the brokers are older than ids (Kafka 2.8).
/// Blocks.
#[expect(unsafe_code, reason = "librdkafka knows the id; rdkafka has no way to ask for it")]
pub fn look_up<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> KafkaResult<Option<TopicId>> {
    let failed = |code: RDKafkaRespErr| KafkaError::MetadataFetch(code.into());
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: every pointer comes from librdkafka's own constructors, is checked where it can be null, is used while its owner lives, and is
    // destroyed once: `client` outlives the call, `name` the collection, `event` what is read out of it.
    unsafe {
        let handle = client.native_ptr();
        let mut names = [name.as_ptr()];
        let topics = raw::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options =
            raw::rd_kafka_AdminOptions_new(handle, raw::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        raw::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let queue = raw::rd_kafka_queue_new(handle);
        raw::rd_kafka_DescribeTopics(handle, topics, options, queue);
        let event = raw::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() {
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut))
        } else {
            match raw::rd_kafka_event_error(event) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => described(event),
                code => Err(code),
            }
            .map_err(failed)
        };
        if !event.is_null() {
            raw::rd_kafka_event_destroy(event);
        }
        raw::rd_kafka_queue_destroy(queue);
        raw::rd_kafka_AdminOptions_destroy(options);
        raw::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// The id in the answer of one `DescribeTopics` for one topic.
///
/// # Safety
/// `event` must be a living event of that kind.
#[expect(unsafe_code, reason = "reads librdkafka's answer")]
unsafe fn described(event: *mut raw::rd_kafka_event_t) -> Result<Option<TopicId>, RDKafkaRespErr> {
    // SAFETY: what is read belongs to the event, which lives.
    unsafe {
        let mut count = 0;
        let result = raw::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__FAIL);
        }
        let topics = raw::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 {
            return Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__FAIL);
        }
        let topic = *topics;
        let error = raw::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match raw::rd_kafka_error_code(error) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(None),
                code => return Err(code),
            }
        }
        let id = raw::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return Ok(None);
        }
        let halves = (raw::rd_kafka_Uuid_most_significant_bits(id), raw::rd_kafka_Uuid_least_significant_bits(id));
        Ok((halves != (0, 0)).then(|| TopicId(format!("{:016x}{:016x}", halves.0, halves.1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_topic_s_id_is_foreign() {
        let id = TopicId("00ff".into());
        assert!(!id.is_foreign(&id.metadata()));
        assert!(id.is_foreign(&TopicId("00fe".into()).metadata()));
        assert!(!id.is_foreign(""), "a human's commit");
        assert!(!id.is_foreign("moved by ops"), "a human's commit");
        for reread in [Reread::Until(7), Reread::Unbounded] {
            assert!(!id.is_foreign(&id.set_metadata(reread)), "set by a human, of this topic");
            assert!(id.is_foreign(&TopicId("00fe".into()).set_metadata(reread)), "of a topic that is gone");
        }
    }

    #[test]
    fn what_a_human_has_set_is_told_from_a_worker_s_commit() {
        let id = TopicId("00ff".into());
        assert_eq!(id.metadata(), "topic-id=00ff");
        assert_eq!(id.reread("topic-id=00ff"), None, "a worker's");
        assert_eq!(id.set_metadata(Reread::Until(1_042)), "set=1042 topic-id=00ff");
        for reread in [Reread::Until(1_042), Reread::Until(0), Reread::Unbounded] {
            assert_eq!(id.reread(&id.set_metadata(reread)), Some(reread));
        }
        assert_eq!(id.reread("topic-id=00fe"), None, "of another topic, whose offsets mean nothing");
        assert_eq!(id.reread("set=3 topic-id=00fe"), None);
        for somebody_else_s in ["", "moved by ops", "set=x topic-id=00ff", "settled topic-id=00ff"] {
            assert_eq!(id.reread(somebody_else_s), Some(Reread::Unbounded), "{somebody_else_s}");
        }
        assert!(Reread::Until(7).covers(6) && !Reread::Until(7).covers(7) && Reread::Unbounded.covers(i64::MAX));
    }
}
