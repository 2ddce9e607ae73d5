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
/// The same of an offset that a human has set with `auditstream consumer reset`: reading begins there, whatever the ledger says.
const SET_PREFIX: &str = "set topic-id=";

/// A topic's id: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicId(String);

impl TopicId {
    /// 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a commit of this topic's offsets carries.
    pub fn metadata(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// What an offset carries that a human sets: where reading is to begin again. Not a worker's own, so what has landed beyond it is read again.
    pub fn set_metadata(&self) -> String {
        format!("{SET_PREFIX}{}", self.0)
    }

    /// Whether a committed offset with this metadata was committed by a worker that read this very topic.
    pub fn is_own(&self, metadata: &str) -> bool {
        metadata.strip_prefix(PREFIX) == Some(&self.0)
    }

    /// Whether a committed offset with this metadata speaks of another topic than this one. Metadata of another form is somebody else's, such as of a
    /// human who set the offset with Kafka's own tool: he means this topic.
    pub fn is_foreign(&self, metadata: &str) -> bool {
        let id = metadata.strip_prefix(PREFIX).or_else(|| metadata.strip_prefix(SET_PREFIX));
        id.is_some_and(|id| id != self.0)
    }
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
        assert!(!id.is_own(&id.set_metadata()) && !id.is_foreign(&id.set_metadata()), "set by a human, of this topic");
        assert!(id.is_foreign(&TopicId("00fe".into()).set_metadata()), "set by a human, of a topic that is gone");
        assert!(id.is_own(&id.metadata()) && !id.is_own("") && !id.is_own(&TopicId("00fe".into()).metadata()));
    }
}
