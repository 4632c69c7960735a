"""The endpoints behind the proxy, in the tester's own process, so that the oracle sees what reaches them.

    Endpoint        honest: opens sessions, knows its own, answers polls, takes posts, echoes frames and uploads
    RudeEndpoint    answers as the request's path says: cut, garbled, slow, too long, twice, never
"""
import asyncio
import hashlib
import itertools
import json
import random
import re
import secrets
import socket

from http_tools import switching
from wire import BINARY, CLOSE, PING, PONG, TEXT, Broken, Ended, Wire, frame

REQUEST_LINE = re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*) HTTP/1\.1")


def response(body, *fields, status="200 OK"):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body, rng, *fields):
    """The same in chunks of random sizes."""
    out = bytearray("\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *fields]).encode() + b"\r\n\r\n")
    position = 0
    while position < len(body):
        part = body[position:position + rng.choice((1, 7, 100, 1000, 16384, 70000))]
        out += f"{len(part):x}\r\n".encode() + part + b"\r\n"
        position += len(part)
    return bytes(out + b"0\r\n\r\n")


def query_of(target):
    return dict(word.split("=", 1) for word in target.partition("?")[2].split("&") if "=" in word)


class Server:
    """Accepts on one port, for as long as it is open; `open()` again after `close()` takes the same port."""

    def __init__(self, port, tls=None, receive_buffer=None):
        self.port = port
        self.receive_buffer = receive_buffer
        self.address = f"127.0.0.1:{port}"
        self.tls = tls
        self.server = None
        self.tasks = set()
        self.wires = set()

    async def open(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        sock.bind(("127.0.0.1", self.port))
        self.server = await asyncio.start_server(self._accepted, sock=sock, backlog=512, limit=1 << 17, ssl=self.tls)

    async def close(self):
        """As a process that is killed: every connection is reset."""
        if self.server is None:
            return
        self.server.close()
        self.server = None
        for wire in list(self.wires):
            wire.reset()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _accepted(self, reader, writer):
        wire = Wire(reader, writer)
        task = asyncio.current_task()
        self.tasks.add(task)
        self.wires.add(wire)
        try:
            await self.serve(wire)
        except (Ended, OSError, asyncio.CancelledError):
            pass
        except Broken as broken:
            self.broken(broken)
        finally:
            self.tasks.discard(task)
            self.wires.discard(wire)
            writer.transport.abort()

    def broken(self, broken):
        """The proxy sent what is not plain HTTP."""

    async def serve(self, wire):
        raise NotImplementedError


class Endpoint(Server):
    def __init__(self, name, port, oracle, seed, tls=None, receive_buffer=None):
        super().__init__(port, tls, receive_buffer)
        self.name = name
        self.oracle = oracle
        self.rng = random.Random(f"{seed}/endpoint/{name}")
        self.sids = {}  # sid: how many polls it has answered
        self.incarnation = 0
        self.refuses_sessions_since = None  # the proxy has confirmed that it is draining or not listed
        self.others_take_sessions = lambda: False
        self.is_paused = False
        self.resumed = asyncio.Event()

    async def open(self):
        self.incarnation += 1
        self.sids.clear()
        await super().open()

    def broken(self, broken):
        self.oracle.violation("broken HTTP at an endpoint", f"{self.name}: {broken}")

    def pause(self):
        self.is_paused = True
        self.resumed.clear()

    def resume(self):
        self.is_paused = False
        self.resumed.set()

    async def serve(self, wire):
        while True:
            request = await wire.request(self.rng.random() * 0.6 if self.rng.random() < 0.2 else 0.0)
            if self.is_paused:
                await self.resumed.wait()
            found = REQUEST_LINE.fullmatch(request.start)
            if not found:
                raise Broken(request.start)
            method, target = found[1], found[2]
            if "smuggled" in target:
                self.oracle.violation("smuggled", request.start)
            query = query_of(target)
            if request.get("x-number"):
                self.check_body(request)
            if "/socket.io" in target.partition("?")[0]:
                await self.engine_io(wire, request, method, query)
                if self.is_websocket(request, query):
                    return
            elif request.get("upgrade") is not None:
                await wire.send(switching(request.get("sec-websocket-key")))
                return await self.echo(wire)
            else:
                await wire.send(self.plain(request, method))

    @staticmethod
    def is_websocket(request, query):
        return query.get("transport") == "websocket" and request.get("upgrade") is not None

    def check_body(self, request):
        self.oracle.post_arrived(request.get("x-number"), self.name)
        if hashlib.sha256(request.body).hexdigest() != request.get("x-sha256"):
            self.oracle.violation("garbled upload", f"{request.start}: {len(request.body)} bytes")

    def plain(self, request, method):
        """Its own number, and as many bytes as it asks for."""
        size = min(int(query_of(request.start.split(" ")[1]).get("size", 0)), 1 << 23)
        fields = [f"X-Endpoint: {self.name}", f"X-Answer: {request.get('x-ask', '')}"]
        body = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
        body = body[:size]
        if method == "HEAD":
            return response(body, *fields)[:-len(body) or None]
        return chunked(body, self.rng, *fields) if self.rng.random() < 0.4 else response(body, *fields)

    def open_session(self, request):
        sid = f"{self.name}-{self.incarnation}-{secrets.token_hex(6)}"
        self.sids[sid] = 0
        refuses = self.refuses_sessions_since
        if refuses is not None and self.oracle.now() - refuses > 1.0 and self.others_take_sessions():
            self.oracle.violation("placed on a draining endpoint", f"{self.name}: {request.start}")
        return sid, b"0" + json.dumps({"sid": sid, "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000,
                                       "maxPayload": 1000000}, separators=(",", ":")).encode()

    async def engine_io(self, wire, request, method, query):
        answer = f"X-Answer: {request.get('x-ask', '')}"
        sid = query.get("sid")
        if sid is not None and sid not in self.sids:
            if not request.get("x-attack") and not sid.startswith(f"{self.name}-"):
                self.oracle.violation("misrouted", f"{sid} came to {self.name}: {request.start}")
            return await wire.send(response(b'{"code":1,"message":"Session ID unknown"}', answer, status="400 Bad Request"))
        if query.get("transport") == "websocket":
            if not self.is_websocket(request, query):
                return await wire.send(response(b"{}", answer, status="400 Bad Request"))
            await wire.send(switching(request.get("sec-websocket-key"), answer))
            if sid is None:
                sid, packet = self.open_session(request)
                await wire.send(frame(packet, TEXT, masked=False))
            return await self.echo(wire)
        if sid is None:
            sid, packet = self.open_session(request)
            return await wire.send(response(packet, answer, "Content-Type: text/plain; charset=UTF-8"))
        if method == "POST":
            return await wire.send(response(b"ok", answer))
        self.sids[sid] += 1
        body = f"4{sid}:{self.sids[sid]}".encode()
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.random() * 0.3)
        await wire.send(response(body, answer, f"X-Endpoint: {self.name}"))

    async def echo(self, wire):
        """Every message back as it came, in frames of other sizes, until the peer closes."""
        message = bytearray()
        while True:
            opcode, fin, payload = await wire.frame()
            if opcode == CLOSE:
                await wire.send(frame(payload[:2], CLOSE, masked=False))
                return
            if opcode == PING:
                await wire.send(frame(payload, PONG, masked=False))
            elif opcode != PONG:
                message += payload
                if fin:
                    await wire.send(self.in_frames(bytes(message)))
                    message.clear()

    def in_frames(self, message):
        if len(message) < 2 or self.rng.random() < 0.7:
            return frame(message, BINARY, masked=False)
        cut = self.rng.randrange(1, len(message))
        return frame(message[:cut], BINARY, masked=False, fin=False) + frame(message[cut:], 0, masked=False)


def rude_answers():
    """Name: what a rude endpoint writes, and whether it ends the connection then."""
    ok = response(b"x" * 100)
    return {
        "nothing": (b"", True),
        "half-head": (ok[:20], True),
        "half-body": (ok[:-50], True),
        "two": (ok + ok, False),
        "extra": (ok + b"garbage", False),
        "garbage": (b"\x00\xff\r\n\r\n" * 20, True),
        "both-framings": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        "bad-chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n", False),
        "half-chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", True),
        "huge-head": (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n", False),
        "negative": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", True),
        "until-end": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"y" * 5000, True),
        "bare-101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", True),
        "wrong-101": (switching("AAAAAAAAAAAAAAAAAAAAAA=="), False),
        "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + ok, False),
        "no-content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", False),
        "open-garbled": (response(b'0{"sid":"' + b"a" * 300), False),
        "open-twice": (response(b'0{"sid":"a","sid":"b"}\x1e0{"sid":"c"}'), False),
        "frames-garbled": (None, True),
        "silent": (None, False),
    }


class RudeEndpoint(Server):
    ANSWERS = rude_answers()

    def __init__(self, port, seed):
        super().__init__(port)
        self.rng = random.Random(f"{seed}/rude")

    async def serve(self, wire):
        for _ in itertools.repeat(None):
            request = await wire.request()
            kind = request.start.split(" ")[1].partition("kind=")[2].partition("&")[0]
            answer, ends = self.ANSWERS.get(kind, (response(b"fine"), False))
            if kind == "silent":
                await asyncio.sleep(1 + self.rng.random())
                return
            if kind == "frames-garbled":
                await wire.send(switching(request.get("sec-websocket-key") or "x"))
                answer = self.rng.randbytes(self.rng.randrange(1, 3000))
            if answer and self.rng.random() < 0.5:
                cut = self.rng.randrange(len(answer))
                await wire.send(answer[:cut])
                await asyncio.sleep(self.rng.random() * 0.1)
                answer = answer[cut:]
            await wire.send(answer)
            if ends:
                if self.rng.random() < 0.3:
                    wire.reset()
                return
