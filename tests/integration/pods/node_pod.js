// A socket.io 4.8 pod for tests: the same events and paths as flask_pod.py describes.
// EIO=3 clients are let in. POD_QUEUE is a redis:// URL for @socket.io/redis-adapter; absent: no backplane.
// POD_CERT, POD_KEY are PEM files: https.
// `refused` counts the requests that Engine.IO refused, by its own codes (1: session unknown).
"use strict";

const fs = require("fs");
const http = require("http");
const https = require("https");
const { Server } = require("socket.io");

const name = process.env.POD_NAME;
const counts = { sessions: 0, connects: 0, refused: {} };

function said(namespace, room, number, size) {
  const data = { pod: name, room, number, filler: "x".repeat(size) };
  const all = io.of(namespace);
  (room ? all.to(room) : all).emit("said", data);
}

function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
}

function onRequest(request, response) {
  const url = new URL(request.url, "http://pod");
  if (url.pathname === "/pod") {
    answer(response, 200, { pod: name, pid: process.pid, ...counts });
  } else if (url.pathname === "/emit") {
    const number = (key, otherwise) => Number(url.searchParams.get(key) ?? otherwise);
    const first = number("first", 0);
    for (let n = first; n < first + number("count", 1); n++) {
      said(url.searchParams.get("namespace") || "/", url.searchParams.get("room"), n, number("size", 0));
    }
    answer(response, 200, { pod: name });
  } else {
    answer(response, 404, { pod: name });
  }
}

const server = process.env.POD_CERT
  ? https.createServer({ cert: fs.readFileSync(process.env.POD_CERT), key: fs.readFileSync(process.env.POD_KEY) }, onRequest)
  : http.createServer(onRequest);

const io = new Server(server, {
  allowEIO3: true,
  cors: { origin: true, credentials: true },
  pingInterval: Number(process.env.POD_PING_INTERVAL ?? 25) * 1000,
  pingTimeout: Number(process.env.POD_PING_TIMEOUT ?? 20) * 1000,
});

io.engine.on("connection_error", (error) => {
  counts.refused[error.code] = (counts.refused[error.code] ?? 0) + 1;
});

async function joinBackplane(url) {
  const { createClient } = require("redis-4");
  const { createAdapter } = require("@socket.io/redis-adapter");
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) {
    client.on("error", (error) => console.error("redis:", error.message));
    await client.connect();
  }
  io.adapter(createAdapter(publisher, subscriber));
}

function onConnect(socket) {
  counts.sessions += 1;
  counts.connects += 1;
  socket.emit("hello", { pod: name });
  const roomsOf = () => ({ pod: name, rooms: [...socket.rooms] });
  const on = (event, handler) => {
    socket.on(event, (...args) => {
      const acknowledge = typeof args[args.length - 1] === "function" ? args.pop() : () => {};
      acknowledge(handler(args[0]));
    });
  };
  on("join", (data) => {
    socket.join(data.room);
    return roomsOf();
  });
  on("leave", (data) => {
    socket.leave(data.room);
    return roomsOf();
  });
  on("say", (data) => {
    said(socket.nsp.name, data.room, data.number, data.size || 0);
    return { pod: name };
  });
  on("echo", (data) => {
    socket.emit("echoed", data);
    return data;
  });
  on("whoami", () => ({
    pod: name,
    engine_sid: socket.conn.id,
    socket_id: socket.id,
    transport: socket.conn.transport.name,
  }));
  socket.on("disconnect", () => {
    counts.sessions -= 1;
  });
}

async function serve() {
  if (process.env.POD_QUEUE) await joinBackplane(process.env.POD_QUEUE);
  for (const namespace of ["/", "/admin"]) {
    io.of(namespace).on("connection", onConnect);
  }
  server.listen(Number(process.env.POD_PORT), "127.0.0.1");
}

serve();
process.on("SIGTERM", () => process.exit(0));
