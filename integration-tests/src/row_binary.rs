//! Reads `FORMAT RowBinaryWithNamesAndTypes` (<https://clickhouse.com/docs/interfaces/formats/RowBinaryWithNamesAndTypes>): every value exactly as
//! stored, with nothing rounded or escaped.

use uuid::Uuid;

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// `String`, `LowCardinality(String)`; also bytes that are no text.
    Bytes(Vec<u8>),
    /// `FixedString(16)`.
    Fixed([u8; 16]),
    /// `UUID`.
    Uuid(Uuid),
    /// Signed integers, and times as ticks of their scale.
    Int(i64),
    /// Unsigned integers.
    UInt(u64),
    /// `Array(String)`.
    List(Vec<Vec<u8>>),
    /// `Array(Tuple(name String, value String))`.
    Pairs(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Value {
    /// From text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }

    /// As a signed integer.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(value) => *value,
            other => panic!("{other:?} is no signed integer"),
        }
    }

    /// As a UUID.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Uuid(value) => *value,
            other => panic!("{other:?} is no UUID"),
        }
    }
}

/// All rows of an answer.
#[derive(Debug)]
pub struct Table {
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// Reads an answer.
    ///
    /// # Panics
    /// When it is cut off or has a type that no table here has.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let mut input = Input(bytes);
        let width = input.length();
        let names: Vec<String> = (0..width).map(|_| input.string()).collect();
        let types: Vec<String> = (0..width).map(|_| input.string()).collect();
        let kinds: Vec<Kind> = types.iter().map(|name| Kind::of(name)).collect();
        let mut rows = Vec::new();
        while !input.0.is_empty() {
            rows.push(kinds.iter().map(|kind| input.value(*kind)).collect());
        }
        Self { columns: names.into_iter().zip(types).collect(), rows }
    }

    /// Where column `name` stands in a row.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|(column, _)| column == name).unwrap_or_else(|| panic!("no column {name}"))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Bytes,
    Fixed,
    Uuid,
    Int32,
    Int64,
    UInt64,
    List,
    Pairs,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "String" | "LowCardinality(String)" => Self::Bytes,
            "FixedString(16)" => Self::Fixed,
            "UUID" => Self::Uuid,
            "Int32" => Self::Int32,
            "Int64" => Self::Int64,
            "UInt64" => Self::UInt64,
            "Array(String)" => Self::List,
            "Array(Tuple(name String, value String))" => Self::Pairs,
            time if time.starts_with("DateTime64(") => Self::Int64,
            other => panic!("the harness does not read type {other}"),
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (head, rest) = self.0.split_at_checked(count).expect("the answer is cut off");
        self.0 = rest;
        head
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("as many as asked for")
    }

    /// LEB128.
    fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let [byte] = self.array();
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return length;
            }
            shift += 7;
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.length();
        self.take(length).to_vec()
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("a name is text")
    }

    fn value(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Bytes => Value::Bytes(self.bytes()),
            Kind::Fixed => Value::Fixed(self.array()),
            Kind::Uuid => {
                let (high, low) = (u64::from_le_bytes(self.array()), u64::from_le_bytes(self.array()));
                Value::Uuid(Uuid::from_u64_pair(high, low))
            }
            Kind::Int32 => Value::Int(i32::from_le_bytes(self.array()).into()),
            Kind::Int64 => Value::Int(i64::from_le_bytes(self.array())),
            Kind::UInt64 => Value::UInt(u64::from_le_bytes(self.array())),
            Kind::List => Value::List((0..self.length()).map(|_| self.bytes()).collect()),
            Kind::Pairs => Value::Pairs((0..self.length()).map(|_| (self.bytes(), self.bytes())).collect()),
        }
    }
}
