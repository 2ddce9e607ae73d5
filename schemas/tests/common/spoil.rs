//! Ways to spoil a record: what a broken disk, a broken writer or a hostile one would do.

use proptest::prelude::*;

/// A number as Avro writes it.
pub fn zigzag(value: i64) -> Vec<u8> {
    let mut n = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// One way to spoil a record.
#[derive(Clone, Debug)]
pub enum Slip {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

/// Any one slip.
pub fn slip() -> impl Strategy<Value = Slip> {
    let at = any::<prop::sample::Index>;
    let telling = prop_oneof![
        any::<u8>().prop_map(|b| vec![b]),
        any::<i64>().prop_map(zigzag),
        (-70_i64..70).prop_map(zigzag),
        Just(vec![0x82, 0x80, 0x00]),
        Just(vec![0xff; 10]),
    ];
    prop_oneof![
        // Mostly bits that leave ASCII what it is, so that many a spoiled record is a good one.
        3 => (at(), 1..=0x1f_u8).prop_map(|(i, b)| Slip::Flip(i, b)),
        1 => (at(), 1..=255_u8).prop_map(|(i, b)| Slip::Flip(i, b)),
        1 => (at(), telling).prop_map(|(i, b)| Slip::Insert(i, b)),
        1 => (at(), 1..9_usize).prop_map(|(i, n)| Slip::Remove(i, n)),
        1 => (at(), at(), 1..40_usize).prop_map(|(i, j, n)| Slip::Copy(i, j, n)),
    ]
}

/// Makes the slip.
pub fn spoil(body: &mut Vec<u8>, slip: &Slip) {
    if body.is_empty() {
        return;
    }
    let len = body.len();
    match slip {
        Slip::Flip(i, bits) => body[i.index(len)] ^= bits,
        Slip::Insert(i, bytes) => drop(body.splice(i.index(len)..i.index(len), bytes.iter().copied())),
        Slip::Remove(i, n) => drop(body.drain(i.index(len)..(i.index(len) + n).min(len))),
        Slip::Copy(i, j, n) => {
            let part = body[j.index(len)..(j.index(len) + n).min(len)].to_vec();
            let (from, to) = (i.index(len), (i.index(len) + part.len()).min(len));
            drop(body.splice(from..to, part));
        }
    }
}
