import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;

/**
 * What both Java clients of MQTT do: publish the messages that come as lines, or show what a subscription gets. The
 * verbs, options and lines are those of mqtt_paho.py.
 */
abstract class MqttClientProgram {
    static final long SESSION_SECONDS = 3600;
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final HexFormat HEX = HexFormat.of();

    private final Map<String, String> options = new HashMap<>();
    private final BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    /** Connects; whether the broker had a session. Messages that come are given to {@link #message}. */
    abstract boolean connect() throws Exception;

    /** Publishes and waits until it is acknowledged. */
    abstract void publish(JsonObject message) throws Exception;

    abstract void subscribe(String[] filters, int qos) throws Exception;

    abstract void unsubscribe(String filter) throws Exception;

    abstract void disconnect() throws Exception;

    final void run(String[] arguments) throws Exception {
        for (int i = 1; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            options.put(pair[0], pair[1]);
        }
        boolean present = connect();
        switch (arguments[0]) {
            case "publish" -> publishAll();
            case "subscribe" -> subscribeUntilTheEnd(present);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        disconnect();
        OUT.println("{\"event\":\"done\"}");
        // Their threads would keep the machine running.
        System.exit(0);
    }

    private void publishAll() throws Exception {
        int sent = 0;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            publish(JsonParser.parseString(line).getAsJsonObject());
            OUT.printf("{\"event\":\"acked\",\"index\":%d,\"reason\":0}%n", sent++);
        }
    }

    private void subscribeUntilTheEnd(boolean present) throws Exception {
        OUT.printf("{\"event\":\"connected\",\"session_present\":%b}%n", present);
        if (!present) {
            subscribe(options.get("filter").split(","), Integer.parseInt(option("qos", "1")));
        }
        OUT.println("{\"event\":\"ready\"}");
        // Each line is a filter to leave.
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            unsubscribe(line);
            OUT.println("{\"event\":\"unsubscribed\"}");
        }
    }

    final String option(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    final String address() {
        return "tcp://" + options.get("address");
    }

    final boolean clean() {
        return Boolean.parseBoolean(option("clean", "true"));
    }

    /** Tells of a message that came; {@code properties} may add to it. */
    static void message(String topic, byte[] payload, int qos, boolean retain, JsonObject properties) {
        JsonObject event = properties.deepCopy();
        event.addProperty("event", "message");
        event.addProperty("topic", topic);
        event.addProperty("payload", HEX.formatHex(payload));
        event.addProperty("qos", qos);
        event.addProperty("retain", retain);
        if (!event.has("user")) {
            event.add("user", new JsonArray());
        }
        OUT.println(event);
    }

    static byte[] bytes(JsonElement hex) {
        return HEX.parseHex(hex.getAsString());
    }

    static byte[] bytes(String hex) {
        return HEX.parseHex(hex);
    }

    static String hex(byte[] data) {
        return HEX.formatHex(data);
    }

    /** A field that is there and not null. */
    static boolean has(JsonObject message, String name) {
        return message.has(name) && !message.get(name).isJsonNull();
    }
}
