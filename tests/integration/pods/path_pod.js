// Node's engine.io for tests of paths: path_pod.js SLASH, "true" or "false" for addTrailingSlash.
"use strict";

const http = require("http");
const engine = require("engine.io");

const server = http.createServer((request, response) => {
  response.writeHead(request.url === "/pod" ? 200 : 404);
  response.end("{}");
});
engine.attach(server, { path: "/socket.io", addTrailingSlash: process.argv[2] === "true", cors: { origin: "*" } });
server.listen(Number(process.env.POD_PORT), "127.0.0.1");
