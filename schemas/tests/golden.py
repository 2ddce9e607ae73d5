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


def varint(number):
    """Unsigned LEB128."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def content_hash(event):
    """SHA-256 over the canonical frame, cut to 16 bytes, in hexadecimal digits."""
    actor = event["actor"]
    micros = (event["occurred_at"] - EPOCH) // datetime.timedelta(microseconds=1)
    fields = [
        (1, event["event_id"].bytes), (2, struct.pack("<q", micros)), (3, event["tenant_id"]), (4, event["service"]),
        (5, event["environment"], "default"), (6, event["action"]), (7, event["operation"], "OTHER"),
        (8, event["entity_type"]), (9, event["entity_id"]), (10, event["entity_name"], ""), (11, actor["kind"]),
        (12, actor["id"], ""), (13, actor["name"], ""), (14, actor["email"], ""), (15, actor["session_id"], ""),
        (16, event["on_behalf_of"], ""), (17, event["outcome"]), (18, event["error_message"], ""), (19, event["changes"]),
        (20, event["ip"], ""), (21, event["user_agent"], ""), (22, event["request_id"], ""),
        (23, event["correlation_id"], ""), (24, event["trace_id"], ""), (25, event["http_method"], ""),
        (26, event["http_path"], ""), (27, event["priority"], "STANDARD"), (28, event["details"], "{}"),
    ]
    frame = bytearray()

    def value(text):
        text = text if isinstance(text, bytes) else (text or "").encode()
        frame.extend(varint(len(text)) + text)

    for tag, content, *default in fields:
        if tag == 19:
            if content:
                frame.extend(bytes([tag]) + varint(len(content)))
            for change in content:
                for name in ("path", "old", "new"):
                    value(change[name])
        elif not default or (content or "") != default[0]:
            frame.append(tag)
            value(content)
    return hashlib.sha256(frame).hexdigest()[:32]


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
