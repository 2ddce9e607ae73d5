import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Audit events by Kafka's Java client, its default partitioner and Apicurio's Avro serializer: what a service without our library would write. Also
 * Avro's own single-object encoding, which needs no registry.
 *
 * <p>usage: Interop produce|produce-single-object|consume BOOTSTRAP TOPIC REGISTRY_URL SCHEMA_FILE
 *
 * <p>produce reads one event a line as plain JSON, and prints {partition, offset} of each in order. consume prints {partition, offset, key, event} of
 * every record that is in the topic, whichever way it is framed.
 */
public final class Interop {
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private final String bootstrap;
    private final String topic;
    private final String registry;
    private final Schema schema;

    private Interop(String[] args) throws IOException {
        bootstrap = args[1];
        topic = args[2];
        // Apicurio's serializer speaks the registry's own API, which lies beside Confluent's.
        registry = args[3].replace("/apis/ccompat/v7", "/apis/registry/v2");
        schema = new Schema.Parser().parse(new File(args[4]));
    }

    public static void main(String[] args) throws Exception {
        Interop interop = new Interop(args);
        switch (args[0]) {
            case "produce" -> interop.produce(interop.registrySerializer());
            case "produce-single-object" -> interop.produce(interop.singleObjectSerializer());
            case "consume" -> interop.consume();
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Confluent's frame with the id that Confluent's API gives to the schema, no headers. */
    private Map<String, Object> registrySettings() {
        Map<String, Object> settings = new HashMap<>();
        settings.put("apicurio.registry.url", registry);
        settings.put("apicurio.registry.as-confluent", true);
        settings.put("apicurio.registry.use-id", "contentId");
        settings.put("apicurio.registry.headers.enabled", false);
        settings.put("apicurio.registry.auto-register", true);
        settings.put("apicurio.registry.auto-register.if-exists", "RETURN_OR_UPDATE");
        return settings;
    }

    private Serializer<GenericRecord> registrySerializer() {
        AvroKafkaSerializer<GenericRecord> serializer = new AvroKafkaSerializer<>();
        serializer.configure(registrySettings(), false);
        return serializer;
    }

    private Serializer<GenericRecord> singleObjectSerializer() {
        BinaryMessageEncoder<GenericRecord> encoder = new BinaryMessageEncoder<>(GenericData.get(), schema);
        Serializer<byte[]> bytes = new ByteArraySerializer();
        return (unused, record) -> {
            try {
                ByteBuffer encoded = encoder.encode(record);
                byte[] value = new byte[encoded.remaining()];
                encoded.get(value);
                return bytes.serialize(unused, value);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
        };
    }

    private void produce(Serializer<GenericRecord> serializer) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "linger.ms", 5);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, GenericRecord> producer =
                new KafkaProducer<>(settings, new StringSerializer(), serializer)) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                GenericRecord event = (GenericRecord) toAvro(schema, JSON.readTree(line));
                sent.add(producer.send(new ProducerRecord<>(topic, keyOf(event), event)));
            }
            producer.flush();
            for (Future<RecordMetadata> future : sent) {
                RecordMetadata at = future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
                ObjectNode line = JSON.createObjectNode().put("partition", at.partition()).put("offset", at.offset());
                OUT.println(JSON.writeValueAsString(line));
            }
        }
    }

    private void consume() throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false);
        try (KafkaConsumer<String, byte[]> consumer =
                        new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
                Deserializer<GenericRecord> registered = new AvroKafkaDeserializer<>()) {
            registered.configure(registrySettings(), false);
            BinaryMessageDecoder<GenericRecord> single = new BinaryMessageDecoder<>(GenericData.get(), schema);
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("not everything could be read in " + PATIENCE);
                }
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    byte[] value = record.value();
                    GenericRecord event =
                            value[0] == 0 ? registered.deserialize(topic, value) : single.decode(value);
                    ObjectNode line = JSON.createObjectNode();
                    line.put("partition", record.partition()).put("offset", record.offset()).put("key", record.key());
                    line.set("event", toPlain(event));
                    OUT.println(JSON.writeValueAsString(line));
                }
            }
        }
    }

    /** tenant/type/id, with % and / inside of a part percent-encoded. */
    private static String keyOf(GenericRecord event) {
        StringBuilder key = new StringBuilder();
        for (String part : List.of("tenant_id", "entity_type", "entity_id")) {
            String text = event.get(part).toString().replace("%", "%25").replace("/", "%2F");
            key.append(key.length() == 0 ? "" : "/").append(text);
        }
        return key.toString();
    }

    private static Object toAvro(Schema schema, JsonNode node) {
        switch (schema.getType()) {
            case RECORD -> {
                GenericRecord record = new GenericData.Record(schema);
                schema.getFields().forEach(field -> record.put(field.pos(), toAvro(field.schema(), node.get(field.name()))));
                return record;
            }
            case ARRAY -> {
                List<Object> items = new ArrayList<>();
                node.forEach(item -> items.add(toAvro(schema.getElementType(), item)));
                return items;
            }
            // Here always null and another.
            case UNION -> {
                return node.isNull() ? null : toAvro(schema.getTypes().get(1), node);
            }
            case ENUM -> {
                return new GenericData.EnumSymbol(schema, node.textValue());
            }
            case LONG -> {
                return node.longValue();
            }
            case STRING -> {
                return node.textValue();
            }
            default -> throw new IllegalArgumentException("no field of an event is " + schema);
        }
    }

    private static JsonNode toPlain(Object value) {
        JsonNodeFactory nodes = JsonNodeFactory.instance;
        if (value == null) {
            return nodes.nullNode();
        } else if (value instanceof GenericRecord record) {
            ObjectNode object = nodes.objectNode();
            record.getSchema().getFields().forEach(field -> object.set(field.name(), toPlain(record.get(field.pos()))));
            return object;
        } else if (value instanceof List<?> items) {
            ArrayNode array = nodes.arrayNode();
            items.forEach(item -> array.add(toPlain(item)));
            return array;
        } else if (value instanceof Long number) {
            return nodes.numberNode(number);
        }
        // Texts, enum symbols, and UUIDs where the reader makes them of texts.
        return nodes.textNode(value.toString());
    }
}
