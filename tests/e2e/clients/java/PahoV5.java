import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttCallback;
import org.eclipse.paho.mqttv5.client.MqttClient;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

/** MQTT 5.0 through Eclipse Paho. */
public final class PahoV5 extends MqttClientProgram implements MqttCallback {
    private MqttClient client;

    public static void main(String[] arguments) throws Exception {
        new PahoV5().run(arguments);
    }

    @Override
    boolean connect() throws Exception {
        MqttConnectionOptions wanted = new MqttConnectionOptions();
        wanted.setCleanStart(clean());
        if (!clean()) {
            wanted.setSessionExpiryInterval(SESSION_SECONDS);
        }
        String willTopic = option("will_topic", null);
        if (willTopic != null) {
            MqttMessage will = new MqttMessage(bytes(option("will_payload", "")));
            will.setQos(Integer.parseInt(option("will_qos", "1")));
            wanted.setWill(willTopic, will);
        }
        client = new MqttClient(address(), option("id", ""), new MemoryPersistence());
        client.setCallback(this);
        return client.connectWithResult(wanted).getSessionPresent();
    }

    @Override
    void publish(JsonObject message) throws Exception {
        MqttMessage sent = new MqttMessage(bytes(message.get("payload")));
        sent.setQos(message.get("qos").getAsInt());
        sent.setRetained(message.get("retain").getAsBoolean());
        sent.setProperties(properties(message));
        client.publish(message.get("topic").getAsString(), sent);
    }

    private static MqttProperties properties(JsonObject message) {
        MqttProperties properties = new MqttProperties();
        if (has(message, "content_type")) {
            properties.setContentType(message.get("content_type").getAsString());
        }
        if (has(message, "response_topic")) {
            properties.setResponseTopic(message.get("response_topic").getAsString());
        }
        if (has(message, "correlation")) {
            properties.setCorrelationData(bytes(message.get("correlation")));
        }
        if (has(message, "expiry")) {
            properties.setMessageExpiryInterval(message.get("expiry").getAsLong());
        }
        if (has(message, "payload_format")) {
            properties.setPayloadFormat(message.get("payload_format").getAsInt() == 1);
        }
        List<UserProperty> user = new ArrayList<>();
        for (JsonElement element : message.getAsJsonArray("user")) {
            JsonArray pair = element.getAsJsonArray();
            user.add(new UserProperty(pair.get(0).getAsString(), pair.get(1).getAsString()));
        }
        properties.setUserProperties(user);
        return properties;
    }

    @Override
    void subscribe(String[] filters, int qos) throws Exception {
        int[] each = new int[filters.length];
        Arrays.fill(each, qos);
        client.subscribe(filters, each);
    }

    @Override
    void unsubscribe(String filter) throws Exception {
        client.unsubscribe(filter);
    }

    @Override
    void disconnect() throws Exception {
        client.disconnect();
    }

    @Override
    public void messageArrived(String topic, MqttMessage message) {
        JsonObject shown = new JsonObject();
        MqttProperties properties = message.getProperties();
        shown.addProperty("content_type", properties.getContentType());
        shown.addProperty("response_topic", properties.getResponseTopic());
        if (properties.getCorrelationData() != null) {
            shown.addProperty("correlation", hex(properties.getCorrelationData()));
        }
        shown.addProperty("expiry", properties.getMessageExpiryInterval());
        if (properties.getPayloadFormat()) {
            // It does not tell 0 from none.
            shown.addProperty("payload_format", 1);
        }
        JsonArray user = new JsonArray();
        for (UserProperty property : properties.getUserProperties()) {
            JsonArray pair = new JsonArray();
            pair.add(property.getKey());
            pair.add(property.getValue());
            user.add(pair);
        }
        shown.add("user", user);
        message(topic, message.getPayload(), message.getQos(), message.isRetained(), shown);
    }

    @Override
    public void disconnected(MqttDisconnectResponse response) {
        System.err.println(response);
    }

    @Override
    public void mqttErrorOccurred(MqttException failure) {
        failure.printStackTrace();
    }

    @Override
    public void deliveryComplete(IMqttToken token) {}

    @Override
    public void connectComplete(boolean reconnect, String address) {}

    @Override
    public void authPacketArrived(int reason, MqttProperties properties) {}
}
