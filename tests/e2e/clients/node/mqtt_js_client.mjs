// What the MQTT.js clients do, in Node and in a page of a browser: publish the messages that come as lines, or show
// what a subscription gets. The verbs, options and lines are those of mqtt_paho.py.

const SESSION_SECONDS = 3600;

const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
const hex = (bytes) => bytes && Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const flatten = (userProperties = {}) =>
    Object.entries(userProperties).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));

/// `binary` makes of an Uint8Array what the library wants; `more` are connection options of the platform; `lines` is
/// what comes in, until it ends.
export async function run({ mqtt, binary, tell, more }, verb, options, lines) {
    const five = Number(options.version ?? 5) === 5;
    const clean = (options.clean ?? "true") === "true";

    const connect = () => mqtt.connect({
        ...more, protocolVersion: five ? 5 : 4, clean, clientId: options.id ?? "", reconnectPeriod: 100,
        keepalive: Number(options.keep_alive ?? 60),
        properties: five && !clean ? { sessionExpiryInterval: SESSION_SECONDS } : undefined,
        will: options.will_topic === undefined ? undefined : {
            topic: options.will_topic, payload: binary(unhex(options.will_payload)),
            qos: Number(options.will_qos ?? 1), retain: options.will_retain === "true",
        },
    });

    function publishProperties(message) {
        if (!five) return undefined;
        const properties = {};
        if (message.content_type != null) properties.contentType = message.content_type;
        if (message.response_topic != null) properties.responseTopic = message.response_topic;
        if (message.expiry != null) properties.messageExpiryInterval = message.expiry;
        if (message.payload_format != null) properties.payloadFormatIndicator = message.payload_format === 1;
        if (message.correlation != null) properties.correlationData = binary(unhex(message.correlation));
        if (message.user?.length) {
            properties.userProperties = {};
            for (const [name, value] of message.user) (properties.userProperties[name] ??= []).push(value);
        }
        return properties;
    }

    async function publish() {
        const client = connect();
        let sent = 0;
        const waiting = [];
        for await (const line of lines) {
            const message = JSON.parse(line);
            const index = sent++;
            const { qos = 0, retain = false } = message;
            const publishing = client.publishAsync(message.topic, binary(unhex(message.payload)),
                { qos, retain, properties: publishProperties(message) });
            waiting.push(publishing.then(
                () => tell("acked", { index, reason: 0 }),
                (error) => tell("failed", { index, message: String(error) })));
        }
        await Promise.all(waiting);
        await client.endAsync();
        tell("done", { sent });
    }

    async function subscribe() {
        const client = connect();
        client.on("connect", async (connack) => {
            tell("connected", { session_present: connack.sessionPresent, reason: connack.reasonCode ?? connack.returnCode });
            if (connack.sessionPresent) return tell("ready");
            const granted = await client.subscribeAsync(options.filter.split(","), { qos: Number(options.qos ?? 1) });
            tell("ready", { reasons: granted.map(({ qos }) => qos) });
        });
        client.on("message", (topic, payload, { qos, retain, properties = {} }) => tell("message", {
            topic, payload: hex(payload), qos, retain, user: flatten(properties.userProperties),
            content_type: properties.contentType ?? null, response_topic: properties.responseTopic ?? null,
            correlation: hex(properties.correlationData) ?? null,
            expiry: properties.messageExpiryInterval ?? null,
            payload_format: properties.payloadFormatIndicator === undefined ? null : Number(properties.payloadFormatIndicator),
        }));
        client.on("error", (error) => tell("error", { message: String(error) }));
        // Each line is a filter to leave.
        for await (const line of lines) {
            await client.unsubscribeAsync(line);
            tell("unsubscribed");
        }
        await client.endAsync();
        tell("done");
    }

    await { publish, subscribe }[verb]();
}
