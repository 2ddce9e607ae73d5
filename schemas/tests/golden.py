"""Reads the golden files with fastavro, compares with their JSON form, and encodes them again for the Rust side.

Also computes each content hash from what fastavro read, by the description in src/hash.rs.

usage: golden.py SCHEMA GOLDEN_FOLDER OUT_FOLDER
"""

import datetime
import hashlib
import io
import json
import pathlib
import struct
import sys

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

CONFLUENT_ID = 258
schema_file, golden, out = (pathlib.Path(arg) for arg in sys.argv[1:])
raw_schema = json.loads(schema_file.read_text())
schema = fastavro.parse_schema(raw_schema)
content_fields = [field for field in raw_schema["fields"] if field["name"] != "producer"]
content_schema = fastavro.parse_schema({**raw_schema, "fields": content_fields})
# fastavro prints the fingerprint's bytes in the order in which single-object encoding wants them.
rabin = bytes.fromhex(fingerprint(to_parsing_canonical_form(raw_schema), "CRC-64-AVRO"))
FRAMES = {"single.bin": b"\xc3\x01" + rabin, "confluent.bin": b"\x00" + struct.pack(">I", CONFLUENT_ID)}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def present(record):
    """A record without its null fields: JSON leaves them out."""
    return {name: value for name, value in record.items() if value is not None}


def json_form(event):
    """The event as its JSON form says it, with times as microseconds."""
    event = present(event)
    event["event_id"] = str(event["event_id"])
    event["occurred_at"] = (event["occurred_at"] - EPOCH) // datetime.timedelta(microseconds=1)
    event["actor"] = present(event["actor"])
    event["changes"] = [
        {name: value if name == "path" else json.loads(value) for name, value in present(change).items()}
        for change in event["changes"]
    ]
    event["details"] = json.loads(event["details"])
    return event


def expected(text):
    """The JSON form with its defaults filled in."""
    event = json.loads(text)
    time = datetime.datetime.fromisoformat(event["occurred_at"].replace("Z", "+00:00"))
    event["occurred_at"] = (time - EPOCH) // datetime.timedelta(microseconds=1)
    event.setdefault("changes", [])
    event.setdefault("producer", {"id": "", "epoch": 0, "seq": 0})
    return event


def content_hash(event):
    """SHA-256 over the canonical body, cut to 16 bytes, in hexadecimal digits."""
    null_if_empty = lambda record, names: {**record, **{name: record[name] or None for name in names}}
    optional = [field["name"] for field in raw_schema["fields"] if field["type"] == ["null", "string"]]
    content = null_if_empty(event, optional)
    content["actor"] = null_if_empty(event["actor"], ["id", "name", "email", "session_id"])
    content["changes"] = [null_if_empty(change, ["old", "new"]) for change in event["changes"]]
    body = io.BytesIO()
    fastavro.schemaless_writer(body, content_schema, content)
    return hashlib.sha256(body.getvalue()).hexdigest()[:32]


hashes = {line.split()[1]: line.split()[0] for line in (golden / "content_hashes.txt").read_text().splitlines()}
agree = 0
for ending, frame in FRAMES.items():
    for path in sorted(golden.glob("*." + ending)):
        record = path.read_bytes()
        assert record.startswith(frame), f"{path.name}: frame {record[:10].hex()}, expected {frame.hex()}"
        body = io.BytesIO(record[len(frame):])
        event = fastavro.schemaless_reader(body, schema)
        assert not body.read(), f"{path.name}: bytes left over"
        name = path.name[: -len(ending) - 1]
        want = expected((golden / (name + ".json")).read_text())
        got = json_form(event)
        assert got == want, f"{path.name}:\n{got}\n{want}"
        assert content_hash(event) == hashes[name], f"{path.name}: content hash"
        again = io.BytesIO()
        fastavro.schemaless_writer(again, schema, event)
        (out / path.name).write_bytes(frame + again.getvalue())
        agree += 1
print(f"{agree} golden files agree")
