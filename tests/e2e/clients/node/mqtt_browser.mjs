// MQTT through MQTT.js in a page of headless Chromium, over WebSocket. The page is served from here, as a web
// server would; lines of standard input go into it, and what it tells comes out. The verb `serve` starts the browser,
// whose `endpoint` the others are given as the option `browser`; when one of them is gone its page is closed.

import { accessSync, constants, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";

import { options, say, verb } from "./options.mjs";

const modules = process.env.ROBUSTMQ_NODE_MODULES;
const { chromium } = createRequire(modules + "/")("playwright-core");

const PAGE = "<!doctype html><meta charset=utf-8><title>MQTT</title><link rel=icon href=data:,>";
const FILES = {
    "/": ["text/html", PAGE],
    "/client.mjs": ["text/javascript", readFileSync(new URL("./mqtt_js_client.mjs", import.meta.url))],
    "/mqtt.mjs": ["text/javascript", readFileSync(join(modules, "node_modules/mqtt/dist/mqtt.esm.js"))],
};

function chromiumPath() {
    for (const folder of process.env.PATH.split(delimiter)) {
        const path = join(folder, "chromium");
        try {
            accessSync(path, constants.X_OK);
            return path;
        } catch {
            // The next one.
        }
    }
    throw new Error("chromium is not in PATH");
}

/// In the page: the lines that are pushed, until the end.
function inPage({ verb, options, url }) {
    const waiting = [];
    let wake = () => {};
    globalThis.push = (line) => {
        waiting.push(line);
        wake();
    };
    async function* lines() {
        for (;;) {
            while (waiting.length === 0) await new Promise((resolve) => (wake = resolve));
            const line = waiting.shift();
            if (line === null) return;
            yield line;
        }
    }
    globalThis.finished = (async () => {
        const [{ run }, { default: mqtt }] = await Promise.all([import("/client.mjs"), import("/mqtt.mjs")]);
        const tell = (event, fields = {}) => globalThis.say(JSON.stringify({ event, ...fields }));
        const connect = (more) => mqtt.connect(url, more);
        await run({ mqtt: { connect }, binary: (bytes) => bytes, tell, more: {} }, verb, options, lines());
    })();
}

async function serve() {
    const browser = await chromium.launchServer({
        executablePath: chromiumPath(), headless: true, args: ["--disable-quic", "--disable-gpu"],
    });
    say(JSON.stringify({ event: "ready", endpoint: browser.wsEndpoint() }));
    process.stdin.resume();
    await new Promise((resolve) => process.stdin.on("end", resolve));
    await browser.close();
}

async function open() {
    const server = createServer((request, response) => {
        const [type, content] = FILES[request.url] ?? ["text/plain", ""];
        response.writeHead(FILES[request.url] ? 200 : 404, { "content-type": type }).end(content);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const browser = await chromium.connect(options.browser);
    const page = await browser.newPage();
    page.on("pageerror", (error) => say(JSON.stringify({ event: "error", message: String(error) })));
    page.on("console", (message) => process.stderr.write(message.text() + "\n"));
    await page.exposeFunction("say", say);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.evaluate(inPage, { verb, options, url: `ws://${options.address}/mqtt` });
    const push = (line) => page.evaluate((given) => globalThis.push(given), line);
    for await (const line of createInterface({ input: process.stdin })) await push(line);
    await push(null);
    await page.evaluate(() => globalThis.finished);
    await browser.close();
    server.close();
}

await (verb === "serve" ? serve() : open());
