import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.SaslAuthenticationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Kafka through the Java client. The verbs, options and lines are those of kafka_confluent.py. */
public final class KafkaClient {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final HexFormat HEX = HexFormat.of();

    private KafkaClient() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            options.put(pair[0], pair[1]);
        }
        switch (arguments[0]) {
            case "produce" -> produce(options);
            case "consume" -> consume(options);
            case "login" -> login(options);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static Properties settings(Map<String, String> options) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", options.get("address"));
        settings.put("reconnect.backoff.ms", "50");
        settings.put("reconnect.backoff.max.ms", "200");
        String mechanism = options.get("mechanism");
        if (mechanism != null) {
            String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
            settings.put("security.protocol", "SASL_PLAINTEXT");
            settings.put("sasl.mechanism", mechanism);
            settings.put(
                    "sasl.jaas.config",
                    String.format(
                            "org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";",
                            module, options.get("user"), options.get("password")));
        }
        return settings;
    }

    /** Whether it is let in. */
    private static void login(Map<String, String> options) {
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(options), bytes, bytes)) {
            consumer.listTopics();
            OUT.println("{\"event\":\"welcome\"}");
        } catch (SaslAuthenticationException error) {
            OUT.printf("{\"event\":\"refused\",\"message\":\"%s\"}%n", error.getMessage());
        }
    }

    private static void produce(Map<String, String> options) throws Exception {
        Properties settings = settings(options);
        settings.put("acks", options.getOrDefault("acks", "all"));
        settings.put("enable.idempotence", options.getOrDefault("idempotent", "false"));
        settings.put("compression.type", options.getOrDefault("compression", "none"));
        settings.put("max.request.size", "8000000");
        int sent = 0;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, bytes, bytes)) {
            List<Future<RecordMetadata>> waiting = new ArrayList<>();
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                waiting.add(producer.send(record(options.get("topic"), line)));
            }
            for (Future<RecordMetadata> sending : waiting) {
                RecordMetadata at = sending.get();
                OUT.printf(
                        "{\"event\":\"acked\",\"index\":%d,\"partition\":%d,\"offset\":%d}%n",
                        sent++, at.partition(), at.offset());
            }
        }
        OUT.printf("{\"event\":\"done\",\"sent\":%d}%n", sent);
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, String line) {
        String[] fields = line.split("\t", -1);
        List<Header> headers = new ArrayList<>();
        for (String header : fields[3].isEmpty() ? new String[0] : fields[3].split(",")) {
            String[] pair = header.split("=", 2);
            headers.add(new RecordHeader(pair[0], bytes(pair[1])));
        }
        Long timestamp = fields[2].equals("-") ? null : Long.valueOf(fields[2]);
        return new ProducerRecord<>(topic, null, timestamp, bytes(fields[0]), bytes(fields[1]), headers);
    }

    private static void consume(Map<String, String> options) throws Exception {
        Properties settings = settings(options);
        String topic = options.get("topic");
        String group = options.get("group");
        if (group != null) {
            settings.put("group.id", group);
        }
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", options.getOrDefault("reset", "earliest"));
        settings.put("session.timeout.ms", "6000");
        settings.put("heartbeat.interval.ms", "500");
        settings.put("max.partition.fetch.bytes", "8000000");
        Thread closed = new Thread(KafkaClient::readToEnd);
        closed.setDaemon(true);
        closed.start();
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            if (group != null) {
                consumer.subscribe(List.of(topic), new Listener());
            } else {
                List<TopicPartition> parts =
                        consumer.partitionsFor(topic).stream()
                                .map(part -> new TopicPartition(topic, part.partition()))
                                .toList();
                consumer.assign(parts);
                consumer.seekToBeginning(parts);
                tellParts("ready", parts);
            }
            while (closed.isAlive()) {
                consumer.poll(Duration.ofMillis(50)).forEach(KafkaClient::show);
                if (group != null && Boolean.parseBoolean(options.get("commit"))) {
                    consumer.commitSync();
                }
            }
        }
        OUT.println("{\"event\":\"done\"}");
    }

    private static void readToEnd() {
        try {
            System.in.readAllBytes();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static void show(ConsumerRecord<byte[], byte[]> record) {
        List<String> headers = new ArrayList<>();
        record.headers().forEach(header -> headers.add("[\"" + header.key() + "\"," + hex(header.value()) + "]"));
        OUT.printf(
                "{\"event\":\"record\",\"topic\":\"%s\",\"partition\":%d,\"offset\":%d,\"timestamp\":%d,"
                        + "\"key\":%s,\"value\":%s,\"headers\":[%s]}%n",
                record.topic(), record.partition(), record.offset(), record.timestamp(),
                hex(record.key()), hex(record.value()), String.join(",", headers));
    }

    private static void tellParts(String event, Collection<TopicPartition> parts) {
        String numbers =
                parts.stream().map(part -> String.valueOf(part.partition())).collect(Collectors.joining(","));
        OUT.printf("{\"event\":\"%s\",\"partitions\":[%s]}%n", event, numbers);
    }

    private static byte[] bytes(String text) {
        return text.equals("-") ? null : HEX.parseHex(text);
    }

    private static String hex(byte[] data) {
        return data == null ? "null" : "\"" + HEX.formatHex(data) + "\"";
    }

    private static final class Listener implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> parts) {
            if (!parts.isEmpty()) {
                tellParts("revoked", parts);
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> parts) {
            tellParts("ready", parts);
        }
    }
}
