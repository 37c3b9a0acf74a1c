import com.google.gson.JsonObject;
import java.util.Arrays;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** MQTT 3.1.1 through Eclipse Paho. */
public final class PahoV3 extends MqttClientProgram implements MqttCallback {
    private MqttClient client;

    public static void main(String[] arguments) throws Exception {
        new PahoV3().run(arguments);
    }

    @Override
    boolean connect() throws Exception {
        MqttConnectOptions wanted = new MqttConnectOptions();
        wanted.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
        wanted.setCleanSession(clean());
        // Paho counts a message as under way until its callback thread has had its turn, which is later than `publish` returns: on a
        // busy machine the ten that it permits by default are reached by one message after the other.
        wanted.setMaxInflight(1000);
        String willTopic = option("will_topic", null);
        if (willTopic != null) {
            wanted.setWill(willTopic, bytes(option("will_payload", "")), Integer.parseInt(option("will_qos", "1")), false);
        }
        client = new MqttClient(address(), option("id", ""), new MemoryPersistence());
        client.setCallback(this);
        return client.connectWithResult(wanted).getSessionPresent();
    }

    @Override
    void publish(JsonObject message) throws Exception {
        client.publish(
                message.get("topic").getAsString(),
                bytes(message.get("payload")),
                message.get("qos").getAsInt(),
                message.get("retain").getAsBoolean());
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
        message(topic, message.getPayload(), message.getQos(), message.isRetained(), new JsonObject());
    }

    @Override
    public void connectionLost(Throwable cause) {
        cause.printStackTrace();
    }

    @Override
    public void deliveryComplete(IMqttDeliveryToken token) {}
}
