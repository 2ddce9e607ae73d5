//! The body of an insert: decoded batches as one Arrow stream, kept as bytes until ClickHouse has acknowledged it.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Schema, SchemaRef};
use auditstream_schemas::{Decoded, content_hash};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::flatten::{BodyError, flatten};

/// Rows ready to be sent, as `FORMAT ArrowStream`, with the columns of [`crate::EVENT_COLUMNS`].
///
/// A pure function of the records and their positions: the same records in the same batches give the same bytes, in any process.
#[derive(Clone)]
pub struct EventBody {
    /// The Arrow IPC stream, uncompressed.
    pub bytes: Bytes,
    /// Rows in it.
    pub rows: u64,
    /// The first 16 bytes of SHA-256 over `bytes`.
    pub hash: [u8; 16],
}

impl std::fmt::Debug for EventBody {
    /// Sizes only: the bytes are what people did.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBody").field("bytes", &self.bytes.len()).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Writes `decoded` batches of `topic` as one body, rows in the given order. Pure computation, about 0.1 s per million events: not for a thread that drives sockets.
///
/// # Errors
/// When a batch has not the shape that the schemas promise. No record can cause that.
pub fn event_body(decoded: &[Decoded], topic: &str) -> Result<EventBody, BodyError> {
    let mut batches = Vec::with_capacity(decoded.len());
    for Decoded { batch, positions } in decoded {
        let hash = content_hash(batch).map_err(|fault| BodyError::ContentHash(Box::new(fault)))?;
        batches.push(flatten(batch, positions, topic, hash)?);
    }
    body_of(&batches)
}

/// One stream of all `batches`, which share a schema.
pub(crate) fn body_of(batches: &[RecordBatch]) -> Result<EventBody, BodyError> {
    let schema: SchemaRef = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let size: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut bytes = Vec::with_capacity(size + 64 * 1024);
    let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    let hash = hash_of(&bytes);
    Ok(EventBody { bytes: Bytes::from(bytes), rows: rows as u64, hash })
}

/// The deduplication token is made from this: two bodies under one token would silently lose the second, so it must not collide even for hostile input.
fn hash_of(bytes: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(bytes);
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}
