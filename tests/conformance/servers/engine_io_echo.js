// Engine.IO on Node, every message echoed: what the suite of engine.io-protocol asks a server to be.
//
//   node engine_io_echo.js PORT        NODE_PATH holds engine.io
"use strict";

const { listen } = require("engine.io");

const server = listen(Number(process.argv[2]), {
  pingInterval: 300,
  pingTimeout: 200,
  maxHttpBufferSize: 1_000_000,
  cors: { origin: "*" },
});

server.on("connection", (socket) => {
  socket.on("message", (data) => socket.send(data));
});
