// MQTT through MQTT.js in Node.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

import { run } from "./mqtt_js_client.mjs";
import { options, say, verb } from "./options.mjs";

// The package lies in the cache, not above this file.
const mqtt = createRequire(process.env.ROBUSTMQ_NODE_MODULES + "/")("mqtt");

const [host, port] = options.address.split(":");
const more = {
    host, port: Number(port), protocol: options.protocol ?? "mqtt", path: "/mqtt",
    ca: options.ca && readFileSync(options.ca), cert: options.cert && readFileSync(options.cert),
    key: options.key && readFileSync(options.key),
};
const tell = (event, fields = {}) => say(JSON.stringify({ event, ...fields }));

await run({ mqtt, binary: Buffer.from, tell, more }, verb, options, createInterface({ input: process.stdin }));
