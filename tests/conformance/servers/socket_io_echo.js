// Socket.IO on Node: what the suite of socket.io-protocol asks a server to be.
//
//   node socket_io_echo.js PORT        NODE_PATH holds socket.io
//
// In "/" and "/custom" a client is told its own credentials; in "/" messages come back, as an event or acknowledged.
"use strict";

const { Server } = require("socket.io");

const io = new Server(Number(process.argv[2]), {
  pingInterval: 300,
  pingTimeout: 200,
  connectTimeout: 1000,
  maxHttpBufferSize: 1_000_000,
  cors: { origin: "*" },
});

const tellCredentials = (socket) => socket.emit("auth", socket.handshake.auth);

io.of("/custom").on("connection", tellCredentials);
io.on("connection", (socket) => {
  tellCredentials(socket);
  socket.on("message", (...words) => socket.emit("message-back", ...words));
  socket.on("message-with-ack", (...words) => {
    const acknowledge = words.pop();
    acknowledge(...words);
  });
});
