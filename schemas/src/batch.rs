//! Records to Arrow columns: the hot path.
//!
//! A regular record of nearly any writer schema goes straight to the reader's columns (`straight`), which all writers share. Any other passes the guard
//! (`guard.rs`), which names what is wrong with it, and is then decoded by arrow-avro into the columns of its writer's lane, resolved to the reader
//! schema; of the few writer schemas that arrow-avro would misread (`misread.rs`), apache-avro resolves the body first. One bad record costs only itself:
//! - the decoder of a lane never sees a frame, so that another writer's record can't end its batch;
//! - should arrow-avro refuse a record that the guard passed, it is left with half a row. The lane keeps the bodies it
//!   took, so it starts a new decoder, decodes them again and seals them: each record is decoded twice at the most.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use apache_avro::Schema;
use arrow_array::{FixedSizeBinaryArray, RecordBatch};
use arrow_avro::reader::{Decoder, DecoderMode, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use arrow_schema::{ArrowError, SchemaRef};

use crate::columns::conform;
use crate::decode::{as_reader_writes, refused};
use crate::framing::{Poison, PoisonCode, Position, WriterId, split};
use crate::hash::content_hash;
use crate::schemas::{Known, SchemaError, Schemas};
use crate::straight::{Plan, StraightLane};

/// A lane is sealed at this many rows (arrow-avro's builders grow as needed: nothing is allocated ahead).
const LANE_ROWS: usize = 1 << 20;
/// A lane is sealed at this many bytes: Arrow's 32-bit string offsets hold twice that.
const LANE_BYTES: usize = 1 << 30;

/// Schemas learned from a registry and kept; the oldest is forgotten for a new one, and learned again when it is needed.
const LEARNED: usize = 256;
/// Lanes of this many writers stay open without records. Each keeps the memory of the largest batch that it had.
const IDLE_LANES: usize = 4;

/// Decoded events, in the order they were pushed: those that went straight, whoever wrote them, or those of one writer schema that did not.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The events as columns, in the shape of the reader schema ([`Schemas::arrow_schema`]).
    pub batch: RecordBatch,
    /// Where each row comes from.
    pub positions: Vec<Position>,
    /// The content hash of each row, as [`content_hash`] has it.
    pub content_hashes: FixedSizeBinaryArray,
}

/// The decoder failed in a way that no single record explains. Nothing of the batch is given out; the worker stops.
#[derive(Debug, thiserror::Error)]
#[error("arrow-avro could not finish a batch of {rows} events of schema {writer}")]
pub struct DecodeFault {
    /// The writer schema.
    pub writer: WriterId,
    /// Rows in the batch.
    pub rows: usize,
    /// What arrow-avro says.
    #[source]
    pub source: ArrowError,
}

/// Collects records into Arrow batches.
#[derive(Debug)]
pub struct BatchDecoder {
    schemas: Arc<Schemas>,
    /// What came in at run time, the oldest first.
    learned: VecDeque<WriterId>,
    lanes: Vec<Lane>,
    /// None where everything goes the long way.
    straight: Option<Straight>,
    rows: usize,
    bytes: usize,
}

impl BatchDecoder {
    /// An empty decoder for the known schemas.
    pub fn new(schemas: Arc<Schemas>) -> Self {
        let straight = Some(Straight::new(schemas.arrow_schema()));
        Self { straight, ..Self::reference(schemas) }
    }

    /// One that sends every record the long way, by the guard and arrow-avro: what the straight way is held to, in tests and by the fuzzer. The same
    /// events, hashes and refusals, in three times the time.
    pub fn reference(schemas: Arc<Schemas>) -> Self {
        Self { schemas, learned: VecDeque::new(), lanes: Vec::new(), straight: None, rows: 0, bytes: 0 }
    }

    /// Takes one record, or says why it can't be stored. A refused record leaves no trace.
    ///
    /// # Errors
    /// The record is poison.
    pub fn push(&mut self, record: &[u8], at: Position) -> Result<(), Poison> {
        let (id, body) = split(record)?;
        let lane = self.lane(id)?;
        let known = &self.lanes[lane].known;
        let is_straight = match (&mut self.straight, &known.plan) {
            (Some(straight), Some(plan)) => straight.push(id, body, plan, at)?,
            _ => false,
        };
        if !is_straight {
            known.guard.check(body)?;
            self.lanes[lane].push(body, at)?;
        }
        self.rows += 1;
        self.bytes += record.len();
        Ok(())
    }

    /// Makes a writer schema known from now on, as [`Schemas::add`] does. What was taken before is not touched.
    ///
    /// # Errors
    /// The text is no schema, or its events can't be read as the reader schema.
    pub fn learn(&mut self, id: WriterId, json: &str) -> Result<(), SchemaError> {
        let schemas = Arc::make_mut(&mut self.schemas);
        schemas.add(id, json)?;
        if !self.learned.contains(&id) {
            self.learned.push_back(id);
        }
        if self.learned.len() > LEARNED
            && let Some(oldest) = self.learned.pop_front()
        {
            // A lane of it that is open goes on: it holds the schema itself.
            schemas.forget(oldest);
        }
        Ok(())
    }

    /// Whether a writer schema is known.
    pub fn knows(&self, id: WriterId) -> bool {
        self.schemas.get(id).is_some()
    }

    /// Events taken since the last [`BatchDecoder::finish`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many of them went the straight way.
    pub fn straight_rows(&self) -> usize {
        self.straight.as_ref().map_or(0, |straight| straight.rows)
    }

    /// Bytes of the records taken since the last [`BatchDecoder::finish`], frames included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives out what was taken, and starts anew: one batch of what went straight, then one per writer schema of what did not. More than 1 Mi events or
    /// 1 GiB come in several parts.
    ///
    /// # Errors
    /// The decoder failed as a whole; all that was taken is gone and must be read again.
    pub fn finish(&mut self) -> Result<Vec<Decoded>, DecodeFault> {
        self.rows = 0;
        self.bytes = 0;
        let mut done = Vec::with_capacity(self.lanes.len() + 1);
        let mut fault = None;
        if let Some(straight) = &mut self.straight {
            fault = straight.finish(&mut done).err();
        }
        let mut idle = 0;
        self.lanes.retain(|lane| {
            idle += usize::from(lane.is_empty());
            !lane.is_empty() || idle <= IDLE_LANES
        });
        for lane in &mut self.lanes {
            if let Err(e) = lane.seal() {
                fault = Some(e);
            }
            done.append(&mut lane.sealed);
        }
        match fault {
            None => Ok(done),
            Some(fault) => {
                // What the others hold is dropped with them: the worker reads it again.
                self.lanes.clear();
                self.straight = self.straight.as_ref().map(|_| Straight::new(self.schemas.arrow_schema()));
                Err(fault)
            }
        }
    }

    /// The number of a writer's lane.
    #[inline]
    fn lane(&mut self, id: WriterId) -> Result<usize, Poison> {
        match self.lanes.iter().position(|lane| lane.id == id) {
            Some(index) => Ok(index),
            None => {
                self.lanes.push(Lane::open(id, &self.schemas)?);
                Ok(self.lanes.len() - 1)
            }
        }
    }
}

/// The records that went straight, of all writers.
#[derive(Debug)]
struct Straight {
    lane: StraightLane,
    schema: SchemaRef,
    positions: Vec<Position>,
    rows: usize,
    bytes: usize,
    /// Whose record was the last one.
    writer: Option<WriterId>,
    sealed: Vec<Decoded>,
}

impl Straight {
    fn new(schema: &SchemaRef) -> Self {
        Self {
            lane: StraightLane::new(schema),
            schema: Arc::clone(schema),
            positions: Vec::new(),
            rows: 0,
            bytes: 0,
            writer: None,
            sealed: Vec::new(),
        }
    }

    /// Whether the body was taken.
    #[inline]
    fn push(&mut self, id: WriterId, body: &[u8], plan: &Plan, at: Position) -> Result<bool, Poison> {
        if self.positions.len() >= LANE_ROWS || self.bytes + body.len() > LANE_BYTES {
            self.seal().map_err(|source| unresolvable(id, &source))?;
        }
        let taken = self.lane.push(body, plan).is_some();
        if taken {
            self.writer = Some(id);
            self.positions.push(at);
            self.rows += 1;
            self.bytes += body.len();
        }
        Ok(taken)
    }

    fn seal(&mut self) -> Result<(), ArrowError> {
        let rows = self.positions.len();
        if rows > 0 {
            let taken = self.lane.take(&self.schema)?;
            self.bytes = 0;
            // The next batch is alike, and growing means copying.
            let positions = mem::replace(&mut self.positions, Vec::with_capacity(rows + rows / 8));
            self.sealed.push(Decoded { batch: taken.batch, positions, content_hashes: taken.content_hashes });
        }
        Ok(())
    }

    fn finish(&mut self, done: &mut Vec<Decoded>) -> Result<(), DecodeFault> {
        let rows = self.positions.len();
        self.rows = 0;
        if let Some(writer) = self.writer.take() {
            self.seal().map_err(|source| DecodeFault { writer, rows, source })?;
            done.append(&mut self.sealed);
        }
        Ok(())
    }
}

/// The records of one writer that go the long way.
#[derive(Debug)]
struct Lane {
    id: WriterId,
    known: Arc<Known>,
    /// For apache-avro, which resolves bodies that arrow-avro would misread.
    reader: Arc<Schema>,
    schema: SchemaRef,
    /// Made for the first record: most writers' records all go straight.
    decoder: Option<Decoder>,
    positions: Vec<Position>,
    /// The bodies the decoder took, one after the other, and where each ends.
    bodies: Vec<u8>,
    ends: Vec<usize>,
    sealed: Vec<Decoded>,
}

impl Lane {
    fn open(id: WriterId, schemas: &Schemas) -> Result<Self, Poison> {
        Ok(Self {
            id,
            known: schemas.get(id).ok_or_else(|| unknown_schema(id))?.clone(),
            reader: Arc::clone(schemas.bare_reader()),
            schema: schemas.arrow_schema().clone(),
            decoder: None,
            positions: Vec::new(),
            bodies: Vec::new(),
            ends: Vec::new(),
            sealed: Vec::new(),
        })
    }

    fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.sealed.is_empty()
    }

    fn decoder(&mut self) -> Result<&mut Decoder, ArrowError> {
        match &mut self.decoder {
            Some(decoder) => Ok(decoder),
            none => Ok(none.insert(self.known.decoder()?)),
        }
    }

    fn push(&mut self, body: &[u8], at: Position) -> Result<(), Poison> {
        if self.positions.len() >= LANE_ROWS || self.bodies.len() + body.len() > LANE_BYTES {
            self.seal().map_err(|fault| unresolvable(self.id, &fault.source))?;
        }
        let id = self.id;
        let resolved;
        let body = if self.known.is_misread {
            resolved = as_reader_writes(id, &self.known, &self.reader, body)?;
            &resolved
        } else {
            body
        };
        match self.decoder().map_err(|e| unresolvable(id, &e))?.decode(body) {
            Ok(consumed) if consumed == body.len() => {
                self.positions.push(at);
                self.bodies.extend_from_slice(body);
                self.ends.push(self.bodies.len());
                Ok(())
            }
            refused => {
                let reason = match refused {
                    Ok(consumed) => ArrowError::AvroError(format!("consumed {consumed} of {} bytes", body.len())),
                    Err(e) => e.into(),
                };
                self.restore().map_err(|e| unresolvable(self.id, &e))?;
                Err(unresolvable(self.id, &reason))
            }
        }
    }

    /// A new decoder that holds the rows of the old one, which holds half a row too many; sealed at once, so that no
    /// record is decoded a third time.
    #[cold]
    fn restore(&mut self) -> Result<(), ArrowError> {
        let mut decoder = self.known.decoder()?;
        let mut start = 0;
        for end in &self.ends {
            decoder.decode(&self.bodies[start..*end])?;
            start = *end;
        }
        self.decoder = Some(decoder);
        self.seal().map_err(|fault| fault.source)
    }

    fn seal(&mut self) -> Result<(), DecodeFault> {
        let rows = self.positions.len();
        let Some(decoder) = self.decoder.as_mut().filter(|_| rows > 0) else {
            return Ok(());
        };
        let fault = |source| DecodeFault { writer: self.id, rows, source };
        let Some(batch) = decoder.flush().map_err(|e| fault(e.into()))? else {
            return Err(fault(ArrowError::AvroError("no batch".to_owned())));
        };
        if batch.num_rows() != rows {
            return Err(fault(ArrowError::AvroError(format!("{} rows", batch.num_rows()))));
        }
        let batch = conform(&batch, &self.schema).map_err(fault)?;
        let content_hashes = content_hash(&batch).map_err(|e| fault(ArrowError::ExternalError(Box::new(e))))?;
        self.sealed.push(Decoded { batch, positions: mem::take(&mut self.positions), content_hashes });
        self.bodies.clear();
        self.ends.clear();
        Ok(())
    }
}

/// The poison of a schema id that nobody knows here.
pub(crate) fn unknown_schema(id: WriterId) -> Poison {
    Poison::new(PoisonCode::UnknownSchema, format!("no schema is known under {id}"))
}

/// The poison of a record that a decoder refuses although the guard passed it.
fn unresolvable(id: WriterId, reason: &ArrowError) -> Poison {
    refused(id, &reason.to_string())
}

/// arrow-avro's decoder for bare bodies of one writer schema, resolved to the reader schema.
pub(crate) fn new_decoder(writer_json: &str, reader_json: &str) -> Result<Decoder, ArrowError> {
    let id = Fingerprint::Id(0);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(id, AvroSchema::new(writer_json.to_owned()))?;
    let mut builder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_active_fingerprint(id)
        .with_decoder_mode(DecoderMode::UnframedDatum)
        .with_batch_size(LANE_ROWS);
    if writer_json != reader_json {
        // Resolution costs time for each field, also when there is nothing to resolve.
        builder = builder.with_reader_schema(AvroSchema::new(reader_json.to_owned()));
    }
    builder.build_decoder()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::{AUDIT_EVENT_V1, AuditEvent, Framing, V1_FINGERPRINT, encode};

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset, timestamp_ms: 0 }
    }

    fn body(n: usize) -> Vec<u8> {
        let event = AuditEvent::builder("t", "s", "a", "e", n.to_string()).build().unwrap();
        let mut record = Vec::new();
        encode(&event, Framing::SingleObject, &mut record);
        record.split_off(10)
    }

    /// Behind the guard's back: what arrow-avro refuses, or takes too little of, costs only itself.
    #[test]
    fn a_refusal_of_arrow_avro_harms_no_neighbour() {
        let schemas = Schemas::builtin().unwrap();
        let mut lane = Lane::open(WriterId::Rabin(V1_FINGERPRINT), &schemas).unwrap();
        let mut longer = body(0);
        longer.push(0);
        let bad = [body(0)[..50].to_vec(), vec![], longer, vec![0xff; 40]];
        let mut good = Vec::new();
        for n in 0..20 {
            lane.push(&body(n), at(n as i64)).unwrap();
            good.push(n as i64);
            if n % 5 == 4 {
                let poison = lane.push(&bad[n / 5], at(-1)).unwrap_err();
                assert_eq!(poison.code, PoisonCode::Unresolvable);
            }
        }
        lane.seal().unwrap();
        let offsets: Vec<_> = lane.sealed.iter().flat_map(|d| &d.positions).map(|p| p.offset).collect();
        assert_eq!(offsets, good);
        for done in &lane.sealed {
            use arrow_array::cast::AsArray;
            let ids = done.batch.column_by_name("entity_id").unwrap().as_string::<i32>();
            assert_eq!(done.batch.num_rows(), done.positions.len());
            for (id, position) in ids.iter().zip(&done.positions) {
                assert_eq!(id.unwrap(), position.offset.to_string());
            }
        }
        assert!(lane.bodies.is_empty() && lane.ends.is_empty());
    }

    /// Whatever arrow-avro refuses behind the guard's back makes the lane decode again what it holds: once, and no row of another lane.
    #[test]
    fn a_refusal_of_arrow_avro_costs_one_decoding_more() {
        const ROWS: i64 = 20_000;
        let schemas = Schemas::builtin().unwrap();
        let bodies: Vec<_> = (0..ROWS).map(|n| body(n as usize)).collect();
        let time = |is_spoiled: bool| {
            let mut lane = Lane::open(WriterId::Rabin(V1_FINGERPRINT), &schemas).unwrap();
            let started = std::time::Instant::now();
            for (n, body) in (0..).zip(&bodies) {
                lane.push(body, at(n)).unwrap();
            }
            if is_spoiled {
                lane.push(&[0xff; 40], at(-1)).unwrap_err();
            }
            lane.seal().unwrap();
            assert_eq!(lane.sealed.iter().map(|done| done.positions.len()).sum::<usize>(), ROWS as usize);
            started.elapsed()
        };
        let mut best = [std::time::Duration::MAX; 2];
        for _ in 0..7 {
            best = [best[0].min(time(false)), best[1].min(time(true))];
        }
        eprintln!("{ROWS} rows, the long way: {:?}, with a refusal at the end: {:?}", best[0], best[1]);
        assert!(best[1] < 3 * best[0], "{best:?}");
    }

    #[test]
    fn schemas_learned_at_run_time_are_bounded_and_idle_lanes_too() {
        let mut decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
        let framed = |id: u32| [&[0][..], &id.to_be_bytes(), &body(1)].concat();
        assert_eq!(decoder.push(&framed(1), at(0)).unwrap_err().code, PoisonCode::UnknownSchema);
        for id in 1..=300 {
            decoder.learn(WriterId::Confluent(id), AUDIT_EVENT_V1).unwrap();
            decoder.push(&framed(id), at(id.into())).unwrap();
        }
        assert!(decoder.learn(WriterId::Confluent(999), "\"int\"").is_err());
        let rows = |decoder: &mut BatchDecoder| -> usize {
            decoder.finish().unwrap().iter().map(|done| done.positions.len()).sum()
        };
        assert_eq!(rows(&mut decoder), 300);
        assert_eq!([1, 44, 45, 300].map(|id| decoder.knows(WriterId::Confluent(id))), [false, false, true, true]);
        assert!(decoder.knows(WriterId::Rabin(V1_FINGERPRINT)), "what is built in is never forgotten");
        decoder.push(&framed(300), at(0)).unwrap();
        assert_eq!(rows(&mut decoder), 1);
        assert_eq!(decoder.lanes.len(), IDLE_LANES);
    }

    #[test]
    fn an_empty_decoder_gives_nothing() {
        let mut decoder = BatchDecoder::new(Arc::new(Schemas::builtin().unwrap()));
        assert!(decoder.finish().unwrap().is_empty());
        assert!(decoder.push(b"x", at(0)).is_err());
        assert!(decoder.finish().unwrap().is_empty());
    }
}
