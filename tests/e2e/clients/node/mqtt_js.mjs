// MQTT through MQTT.js: publishes what standard input says, or prints what a subscription gets. The verbs, options
// and lines are those of mqtt_paho.py.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The package lies in the cache, not above this file.
const mqtt = createRequire(process.env.ROBUSTMQ_NODE_MODULES + "/")("mqtt");

const [verb, ...rest] = process.argv.slice(2);
const options = Object.fromEntries(rest.map((pair) => [pair.split("=")[0], pair.slice(pair.indexOf("=") + 1)]));
const five = Number(options.version ?? 5) === 5;
const clean = (options.clean ?? "true") === "true";
const SESSION_SECONDS = 3600;

const tell = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");

function connect() {
    const [host, port] = options.address.split(":");
    return mqtt.connect({
        host, port: Number(port), protocol: options.protocol ?? "mqtt", path: "/mqtt",
        ca: options.ca && readFileSync(options.ca), cert: options.cert && readFileSync(options.cert),
        key: options.key && readFileSync(options.key), protocolVersion: five ? 5 : 4, clean,
        clientId: options.id ?? "", reconnectPeriod: 100, keepalive: Number(options.keep_alive ?? 60),
        properties: five && !clean ? { sessionExpiryInterval: SESSION_SECONDS } : undefined,
        will: options.will_topic === undefined ? undefined : {
            topic: options.will_topic, payload: Buffer.from(options.will_payload, "hex"),
            qos: Number(options.will_qos ?? 1), retain: options.will_retain === "true",
        },
    });
}

function publishProperties(message) {
    if (!five) return undefined;
    const properties = {};
    if (message.content_type != null) properties.contentType = message.content_type;
    if (message.response_topic != null) properties.responseTopic = message.response_topic;
    if (message.expiry != null) properties.messageExpiryInterval = message.expiry;
    if (message.correlation != null) properties.correlationData = Buffer.from(message.correlation, "hex");
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
    for await (const line of createInterface({ input: process.stdin })) {
        const message = JSON.parse(line);
        const index = sent++;
        const { qos = 0, retain = false } = message;
        const publishing = client.publishAsync(message.topic, Buffer.from(message.payload, "hex"),
            { qos, retain, properties: publishProperties(message) });
        waiting.push(publishing.then(
            () => tell("acked", { index, reason: 0 }),
            (error) => tell("failed", { index, message: String(error) })));
    }
    await Promise.all(waiting);
    await client.endAsync();
    tell("done", { sent });
}

function flatten(userProperties = {}) {
    return Object.entries(userProperties).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
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
        topic, payload: payload.toString("hex"), qos, retain, user: flatten(properties.userProperties),
        content_type: properties.contentType ?? null, response_topic: properties.responseTopic ?? null,
        correlation: properties.correlationData?.toString("hex") ?? null,
        expiry: properties.messageExpiryInterval ?? null,
        payload_format: properties.payloadFormatIndicator === undefined ? null : Number(properties.payloadFormatIndicator),
    }));
    client.on("error", (error) => tell("error", { message: String(error) }));
    process.stdin.resume();
    process.stdin.on("end", async () => {
        await client.endAsync();
        tell("done");
    });
}

await { publish, subscribe }[verb]();
