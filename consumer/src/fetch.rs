//! Fetched records, taken out of librdkafka many at a time.
//!
//! rdkafka hands out one record an event: a lock, a wake-up check and several readings of the clock for each, a tenth of what a worker costs. So the
//! fetch queues of the assigned partitions lead to a queue of our own here, from which librdkafka gives many records at once. Rebalances, errors of
//! the client and statistics stay on the consumer's queue, which [`crate::kafka::Reader::serve`] polls.
//!
//! What was taken and not yet looked at waits in here. It belongs to the assignment, and to the position, under which it was fetched: whoever assigns,
//! releases or seeks partitions must call [`Fetched::forget`] for them, or an old record could pass for the next one of the new position.
#![allow(unsafe_code, reason = "librdkafka's way to take many records at once is not wrapped by rdkafka")]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, Timestamp};

use crate::kafka::Signals;

/// Records taken out of librdkafka at once: enough to spread the cost of the call, few enough to hold little.
const AT_ONCE: usize = 512;

/// The records that came for this worker.
pub(crate) struct Fetched {
    queue: NonNull<sys::rd_kafka_queue_t>,
    waiting: VecDeque<Record>,
    taken: Vec<*mut sys::rd_kafka_message_t>,
    /// Outlives the queue and the records, which are librdkafka's.
    consumer: Arc<BaseConsumer<Signals>>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread, one at a time; `&mut self` sees to the latter.
unsafe impl Send for Fetched {}

impl Fetched {
    pub(crate) fn new(consumer: Arc<BaseConsumer<Signals>>) -> KafkaResult<Self> {
        // SAFETY: the client lives as long as `consumer`.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or(KafkaError::ClientCreation("no queue for fetched records".to_owned()))?;
        Ok(Self { queue, waiting: VecDeque::new(), taken: vec![ptr::null_mut(); AT_ONCE], consumer })
    }

    /// From now on the records of these partitions come here. Before each assignment of them.
    pub(crate) fn attach(&mut self, topic: &str, partitions: impl IntoIterator<Item = i32>) -> KafkaResult<()> {
        let name = CString::new(topic).map_err(KafkaError::Nul)?;
        for partition in partitions {
            self.forget(&[partition]);
            // SAFETY: the client lives; the name is a C string; the partition's queue is given back below, and forwarding holds our queue itself.
            unsafe {
                let from =
                    sys::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), name.as_ptr(), partition);
                if from.is_null() {
                    return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownPartition));
                }
                sys::rd_kafka_queue_forward(from, self.queue.as_ptr());
                sys::rd_kafka_queue_destroy(from);
            }
        }
        Ok(())
    }

    /// Drops what waits of these partitions.
    pub(crate) fn forget(&mut self, partitions: &[i32]) {
        self.waiting.retain(|record| !partitions.contains(&record.partition()));
    }

    /// The next record, or what went wrong instead; waits for it at most `timeout`.
    pub(crate) fn next(&mut self, timeout: Duration) -> Option<KafkaResult<Record>> {
        if self.waiting.is_empty() {
            self.take(AT_ONCE, Duration::ZERO);
            if self.waiting.is_empty() && !timeout.is_zero() {
                // librdkafka waits until it has as many as are asked for: the one that ends the waiting must be enough.
                self.take(1, timeout);
            }
        }
        let record = self.waiting.pop_front()?;
        Some(record.error().map_or(Ok(record), Err))
    }

    fn take(&mut self, most: usize, timeout: Duration) {
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue lives, `taken` has room for `most`, and librdkafka fills as many as it answers.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout,
                self.taken.as_mut_ptr(),
                most.min(self.taken.len()),
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        self.waiting.extend(self.taken.iter().take(count).filter_map(|&message| NonNull::new(message)).map(Record));
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.waiting.clear();
        // SAFETY: made in `new`, used by nobody else.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// One record, or an error in the place of one. Must not outlive its [`Fetched`].
pub(crate) struct Record(NonNull<sys::rd_kafka_message_t>);

impl Record {
    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: librdkafka gave it, and it is destroyed in `drop` only.
        unsafe { self.0.as_ref() }
    }

    fn error(&self) -> Option<KafkaError> {
        let code = RDKafkaErrorCode::from(self.raw().err);
        (code != RDKafkaErrorCode::NoError).then_some(KafkaError::MessageConsumption(code))
    }

    /// Milliseconds since 1970; 0 when the record has no timestamp.
    pub(crate) fn timestamp_ms(&self) -> i64 {
        self.timestamp().to_millis().unwrap_or(0)
    }

    /// Bytes of key and value.
    pub(crate) fn length(&self) -> usize {
        self.raw().len + self.raw().key_len
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: owned by this value alone.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// `None` for a null pointer, which is how librdkafka tells an absent value from an empty one.
///
/// # Safety
/// `data` is null or points to `len` bytes that live as long as the answer.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast(), len) })
}

impl Message for Record {
    type Headers = RecordHeaders;

    fn key(&self) -> Option<&[u8]> {
        // SAFETY: the key lies in the record.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    fn payload(&self) -> Option<&[u8]> {
        // SAFETY: the value lies in the record.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    unsafe fn payload_mut(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn topic(&self) -> &str {
        // SAFETY: the topic's name lives as long as the topic, which the record holds.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw().rkt)) };
        name.to_str().unwrap_or_default()
    }

    fn partition(&self) -> i32 {
        self.raw().partition
    }

    fn offset(&self) -> i64 {
        self.raw().offset
    }

    fn timestamp(&self) -> Timestamp {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the record lives.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        match kind {
            _ if time < 0 => Timestamp::NotAvailable,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => Timestamp::NotAvailable,
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => Timestamp::CreateTime(time),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Timestamp::LogAppendTime(time),
        }
    }

    fn headers(&self) -> Option<&RecordHeaders> {
        let mut headers = ptr::null_mut();
        // SAFETY: the record lives, and keeps its headers.
        let code = unsafe { sys::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) };
        let found = RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError && !headers.is_null();
        // SAFETY: `RecordHeaders` is only ever a view of librdkafka's own.
        found.then(|| unsafe { &*headers.cast::<RecordHeaders>() })
    }
}

/// A record's headers, in order.
#[repr(transparent)]
pub(crate) struct RecordHeaders(sys::rd_kafka_headers_t);

impl Headers for RecordHeaders {
    fn count(&self) -> usize {
        // SAFETY: a view of librdkafka's own headers.
        unsafe { sys::rd_kafka_header_cnt(&raw const self.0) }
    }

    fn try_get(&self, index: usize) -> Option<Header<'_, &[u8]>> {
        let (mut name, mut value, mut len): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
        // SAFETY: a view of librdkafka's own headers, which live as long as their record.
        unsafe {
            let code = sys::rd_kafka_header_get_all(&raw const self.0, index, &mut name, &mut value, &mut len);
            if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError || name.is_null() {
                return None;
            }
            // A name that is no text can't be kept as one: its header goes under an empty name rather than not at all.
            Some(Header { key: CStr::from_ptr(name).to_str().unwrap_or_default(), value: bytes(value, len) })
        }
    }
}
