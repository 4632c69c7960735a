// Says what Node's HTTP parser made of a request: one JSON object a request, numbered on its connection, as base64 in a
// field, since HEAD has no body.
//   node --max-http-header-size=262144 parse_echo.js PORT
const http = require("http");

function tell(req, body) {
  req.socket.requests = (req.socket.requests || 0) + 1;
  const said = JSON.stringify({
    number: req.socket.requests,
    method: req.method,
    target: req.url,
    version: req.httpVersion,
    fields: req.rawHeaders,
    body: body.toString("latin1"),
  });
  return Buffer.from(said).toString("base64");
}

const server = http.createServer((req, res) => {
  const parts = [];
  req.on("data", (part) => parts.push(part));
  req.on("end", () => {
    res.writeHead(200, { "Content-Length": 0, "X-Parsed": tell(req, Buffer.concat(parts)) });
    res.end();
  });
});
server.on("upgrade", (req, socket) => {
  socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Parsed: ${tell(req, Buffer.alloc(0))}\r\n\r\n`);
});
server.on("clientError", (error, socket) => {
  const text = Buffer.from(JSON.stringify({ error: error.code })).toString("base64");
  socket.end(`HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nX-Parsed: ${text}\r\n\r\n`);
});
server.keepAliveTimeout = server.requestTimeout = server.headersTimeout = 0;
server.listen(Number(process.argv[2]), "127.0.0.1");
