import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.IndexedRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/**
 * Avro's own resolution: a line of name, writer schema, reader schema and body in hexadecimal digits, separated by tabs, is answered with a line of
 * name, "ok" and the value as JSON, or of name, "error" and the reason. Null is the empty text, as the table has it.
 */
public class Resolve {
    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] parts = line.split("\t");
            String answer;
            try {
                answer = "ok\t" + resolved(parts[1], parts[2], HexFormat.of().parseHex(parts[3]));
            } catch (Exception e) {
                answer = "error\t" + e.toString().replaceAll("\\s+", " ");
            }
            out.println(parts[0] + "\t" + answer);
        }
    }

    private static String resolved(String writer, String reader, byte[] body) throws Exception {
        Schema from = new Schema.Parser().parse(writer);
        Schema to = new Schema.Parser().parse(reader);
        BinaryDecoder input = DecoderFactory.get().binaryDecoder(body, null);
        Object value = new GenericDatumReader<Object>(from, to).read(null, input);
        if (!input.isEnd()) {
            throw new IllegalStateException("bytes are left over");
        }
        StringBuilder json = new StringBuilder();
        write(value, json);
        return json.toString();
    }

    private static void write(Object value, StringBuilder out) {
        if (value == null) {
            out.append("\"\"");
        } else if (value instanceof Number || value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof IndexedRecord record) {
            String comma = "{";
            for (Schema.Field field : record.getSchema().getFields()) {
                out.append(comma);
                text(field.name(), out);
                out.append(':');
                write(record.get(field.pos()), out);
                comma = ",";
            }
            out.append('}');
        } else if (value instanceof List<?> items) {
            String comma = "";
            out.append('[');
            for (Object item : items) {
                out.append(comma);
                write(item, out);
                comma = ",";
            }
            out.append(']');
        } else if (value instanceof Map<?, ?> || value instanceof ByteBuffer) {
            throw new IllegalStateException("the reader schema has no such type");
        } else {
            text(value.toString(), out);
        }
    }

    private static void text(String value, StringBuilder out) {
        out.append('"');
        value.chars().forEach(c -> {
            if (c == '"' || c == '\\' || c < 0x20) {
                out.append(String.format("\\u%04x", c));
            } else {
                out.append((char) c);
            }
        });
        out.append('"');
    }
}
