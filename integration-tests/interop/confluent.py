"""Audit events by Confluent's Python client and its own Avro serializer: what a service without our library would write.

usage: confluent.py produce|consume BOOTSTRAP TOPIC REGISTRY_URL SCHEMA_FILE

`produce` reads one event a line as plain JSON, registers the schema, sends, and prints {partition, offset} of each in order.
`consume` prints {partition, offset, key, event} of every record that is in the topic.
"""

import datetime
import json
import ssl
import sys
import types
import uuid
import warnings

# Confluent's client imports it for TLS, which nothing speaks here.
sys.modules["certifi"] = types.SimpleNamespace(where=lambda: ssl.get_default_verify_paths().cafile)
# One of its dependencies warns of another.
warnings.simplefilter("ignore")

from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: E402
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer  # noqa: E402
from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: E402

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MICROSECOND = datetime.timedelta(microseconds=1)
PATIENCE_S = 30


def key_of(event):
    """tenant/type/id, with % and / inside of a part percent-encoded."""
    parts = (event["tenant_id"], event["entity_type"], event["entity_id"])
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def from_plain(event):
    """As Python programs hold it: a UUID and a datetime."""
    return {**event, "event_id": uuid.UUID(event["event_id"]), "occurred_at": EPOCH + event["occurred_at"] * MICROSECOND}


def to_plain(event):
    return {**event, "event_id": str(event["event_id"]), "occurred_at": (event["occurred_at"] - EPOCH) // MICROSECOND}


def produce(bootstrap, topic, registry, schema):
    # The partitioner of Java's client; this one's own is another.
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    serialize = AvroSerializer(registry, schema, conf={"auto.register.schemas": True})
    context = SerializationContext(topic, MessageField.VALUE)
    acknowledged = {}

    def note(number):
        def delivered(error, message):
            assert error is None, error
            acknowledged[number] = {"partition": message.partition(), "offset": message.offset()}

        return delivered

    events = [json.loads(line) for line in sys.stdin]
    for number, event in enumerate(events):
        value = serialize(from_plain(event), context)
        producer.produce(topic, key=key_of(event).encode(), value=value, on_delivery=note(number))
    left = producer.flush(PATIENCE_S)
    assert left == 0, f"{left} events were not acknowledged"
    for number in range(len(events)):
        print(json.dumps(acknowledged[number]))


def consume(bootstrap, topic, registry, schema):
    # The schema to read with is the one in the file; the one that it was written with comes from the registry.
    deserialize = AvroDeserializer(registry, schema)
    context = SerializationContext(topic, MessageField.VALUE)
    settings = {"bootstrap.servers": bootstrap, "group.id": "confluent.py", "enable.auto.commit": False}
    consumer = Consumer(settings)
    partitions = consumer.list_topics(topic, PATIENCE_S).topics[topic].partitions
    missing = {}
    for partition in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), PATIENCE_S)
        if end > 0:
            missing[partition] = end
    consumer.assign([TopicPartition(topic, partition, 0) for partition in missing])
    while missing:
        message = consumer.poll(PATIENCE_S)
        assert message is not None, f"nothing came for {PATIENCE_S} s; missing: {missing}"
        assert message.error() is None, message.error()
        partition, offset = message.partition(), message.offset()
        event = to_plain(deserialize(message.value(), context))
        print(json.dumps({"partition": partition, "offset": offset, "key": message.key().decode(), "event": event}))
        if offset + 1 >= missing.get(partition, offset + 2):
            del missing[partition]
    consumer.close()


what, bootstrap, topic, url, schema_file = sys.argv[1:]
sys.stdout.reconfigure(encoding="utf-8")
sys.stdin.reconfigure(encoding="utf-8")
with open(schema_file, encoding="utf-8") as file:
    schema_text = file.read()
{"produce": produce, "consume": consume}[what](bootstrap, topic, SchemaRegistryClient({"url": url}), schema_text)
