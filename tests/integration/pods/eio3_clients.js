// socket.io-client 2 clients (EIO=3) in one Node process; with or without a cookie jar of their own.
//
//   node eio3_clients.js URL COUNT jar|no-jar      every second client upgrades, the others stay on polling
//   stdout: one JSON line, [{transport, id, engine, answer, jar, errors}]; answer is the pod's `whoami`
//
// Each client sends, is answered, hears its room, and takes its time, so that it makes many requests.
"use strict";

const http = require("http");
const io = require("socket.io-client-2");

const [url, count, jarWord] = process.argv.slice(2);
const MARK = "x-test-client";
const jars = new Map(); // client number -> {name: value}

// The client library keeps no cookies, so they are kept below it: by the number that each client sends.
for (const method of ["request", "get"]) {
  const original = http[method];
  http[method] = (options, callback) => {
    const key = Object.keys(options.headers ?? {}).find((name) => name.toLowerCase() === MARK);
    const jar = key ? jars.get(options.headers[key]) : undefined;
    if (jar && Object.keys(jar).length) {
      options.headers.Cookie = Object.entries(jar).map(([name, value]) => `${name}=${value}`).join("; ");
    }
    const request = original.call(http, options, callback);
    const keep = (response) => {
      for (const line of response.headers["set-cookie"] ?? []) {
        const [pair] = line.split(";");
        const at = pair.indexOf("=");
        if (jar) jar[pair.slice(0, at)] = pair.slice(at + 1);
      }
    };
    request.on("response", keep);
    request.on("upgrade", keep);
    return request;
  };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function ask(socket, event, data) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${event}: no answer`)), 15000).unref();
    socket.emit(event, data, resolve);
  });
}

async function life(number) {
  const key = String(number);
  const errors = [];
  if (jarWord === "jar") jars.set(key, {});
  const transports = number % 2 ? ["polling", "websocket"] : ["polling"];
  const socket = io(url, { forceNew: true, reconnection: false, transports, extraHeaders: { [MARK]: key } });
  try {
    await new Promise((resolve, reject) => {
      socket.on("connect", resolve);
      for (const event of ["connect_error", "error"]) socket.on(event, reject);
      setTimeout(() => reject(new Error("no connection")), 15000).unref();
    });
    socket.on("disconnect", (reason) => errors.push(`disconnected: ${reason}`));
    const heard = new Promise((resolve) => socket.on("said", resolve));
    await ask(socket, "join", { room: `room of ${number}` });
    await ask(socket, "say", { room: `room of ${number}`, number });
    if ((await heard).number !== number) errors.push("heard another line than its own");
    const deadline = Date.now() + 15000;
    while (number % 2 && socket.io.engine.transport.name !== "websocket" && Date.now() < deadline) await sleep(20);
    for (let i = 0; i < 5; i++) await ask(socket, "echo", { text: `é ${i}` });
    const answer = await ask(socket, "whoami", {});
    const about = {
      transport: socket.io.engine.transport.name, id: socket.id, engine: socket.io.engine.id, answer,
      jar: Object.keys(jars.get(key) ?? {}), errors: [...errors],
    };
    socket.close();
    return about;
  } catch (error) {
    socket.close();
    return { errors: [...errors, String(error.description?.message ?? error.message ?? error)] };
  }
}

(async () => {
  const lives = await Promise.all(Array.from({ length: Number(count) }, (_, number) => life(number)));
  process.stdout.write(JSON.stringify(lives) + "\n", () => process.exit(0));
})();
