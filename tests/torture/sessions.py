"""Honest clients: each does what a browser does, checks every answer, and reports what the oracle must know.

A client is given its own random numbers, so that a seed says what it does. What endpoint serves a session is read
from its sid, whose first part is the endpoint's name.
"""
import asyncio
import contextlib
import hashlib
import itertools
import json

import wire as wires
from http_tools import KEY
from wire import BINARY, CLOSE, PING, PONG, Broken, Ended, Wire, frame

#: Nothing honest takes longer, whatever the machine does; multiplied by the oracle's patience.
HANG = 30.0

_numbers = itertools.count(1)


def request(method, target, *fields, body=None, chunks=None):
    lines = [f"{method} {target} HTTP/1.1", "Host: edge.test", *fields]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        coded = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in chunks)
        body = coded + b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def upgrade(target, *fields):
    return request("GET", target, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                   f"Sec-WebSocket-Key: {KEY}", *fields)


def framed(payloads):
    return b"".join(frame(payload, BINARY) for payload in payloads)


class Failed(Exception):
    """What an honest client met: (kind, text)."""


class Rider:
    """One honest client. `edge` names the ports and contexts of the proxy."""

    def __init__(self, name, edge, oracle, rng):
        self.name = name
        self.edge = edge
        self.oracle = oracle
        self.rng = rng
        self.tls = edge.tls_context if rng.random() < edge.tls_share else None
        self.port = edge.tls_port if self.tls else edge.port
        self.base = rng.choice(edge.engine_paths)
        self.endpoint = None  # its session's
        self.since = 0.0
        self.began = 0.0

    # ── one request ──

    async def open(self):
        return await Wire.open(self.port, tls=self.tls, seconds=HANG * self.oracle.patience)

    async def send(self, wire, data):
        if self.rng.random() < 0.15 and len(data) > 1:
            await wire.dribble(data, self.rng)
        else:
            await wire.send(data)

    async def ask(self, wire, method, target, *fields, **body):
        """The answer to a request, which must be this one's own."""
        number = f"{self.name}-{next(_numbers)}"
        await self.send(wire, request(method, target, f"X-Ask: {number}", *fields, **body))
        answer = await wire.answer(method)
        if answer.get("x-answer") not in (None, number):
            self.oracle.violation("answer of another request", f"{number} got {answer.get('x-answer')}")
        self.oracle.count("requests")
        return answer

    def expect(self, answer, what):
        if answer.status != 200:
            raise Failed(f"status {answer.status}", f"{self.name} {what}: {answer.start} {answer.body[:100]!r} "
                         f"(by {'the endpoint' if answer.get('x-answer') else 'the edge'})")

    # ── what it does ──

    async def run(self, until):
        """Does one thing after another until `until` (of the oracle's clock)."""
        deeds = [(self.polling, 4), (self.websocket, 4), (self.plain, 3), (self.uploads, 3), (self.download, 1)]
        kinds, weights = zip(*deeds)
        while self.oracle.now() < until:
            deed = self.rng.choices(kinds, weights)[0]
            self.endpoint, self.began = None, self.oracle.now()
            try:
                await deed(until)
            except Failed as failed:
                self.oracle.failed(self.endpoint, self.since, *failed.args)
            except Ended as ended:
                self.oracle.failed(self.endpoint, self.since, "connection ended", f"{self.name} {deed.__name__}: {ended}")
            except Broken as broken:
                self.oracle.violation("broken HTTP at a client", f"{self.name} {deed.__name__}: {broken}")
            except asyncio.TimeoutError:
                self.oracle.failed(self.endpoint, self.since, "hang", f"{self.name} {deed.__name__}")
            except OSError as error:
                self.oracle.violation("cannot connect", f"{self.name}: {error!r}")
            await asyncio.sleep(self.rng.random() * 0.05)

    async def in_time(self, awaited):
        return await asyncio.wait_for(awaited, HANG * self.oracle.patience)

    async def handshake(self, wire):
        """The sid of a new session. It may fail only while every endpoint is disturbed; it is not tied to one."""
        since = self.oracle.now()
        while True:
            try:
                answer = await self.in_time(self.ask(wire, "GET", f"{self.base}?EIO=4&transport=polling"))
                if answer.status == 200:
                    break
                trouble = f"{answer.start} {answer.body[:80]!r}"
            except Ended as ended:
                trouble = repr(ended)
                wire.close()
                wire = await self.in_time(self.open())
            if not self.edge.any_disturbed(since):
                raise Failed("handshake refused", f"{self.name}: {trouble}")
            self.oracle.count("excused handshakes")
            await asyncio.sleep(0.1)
            if self.oracle.now() - since > HANG * self.oracle.patience:
                raise Failed("no handshake", f"{self.name}: {trouble}")
        if not answer.body.startswith(b'0{"sid":"'):
            raise Broken(f"open packet: {answer.body[:200]!r}")
        sid = json.loads(answer.body[1:])["sid"]
        self.endpoint, self.since = sid.split("-")[0], since
        self.oracle.count("sessions")
        return wire, sid

    async def polling(self, until):
        """A session over polling, on several connections, that may become a WebSocket in the end."""
        wire, sid = await self.handshake(await self.in_time(self.open()))
        raw = sid.rsplit(".", 1)[0]
        polls = 0
        try:
            for _ in range(self.rng.randrange(1, 25)):
                if self.oracle.now() > until:
                    break
                if self.rng.random() < 0.2:
                    wire.close()
                    wire = await self.in_time(self.open())
                if self.rng.random() < 0.4:
                    await self.post(wire, sid)
                else:
                    answer = await self.in_time(self.ask(wire, "GET", f"{self.base}?EIO=4&transport=polling&sid={sid}"))
                    self.expect(answer, "poll")
                    polls += 1
                    if answer.body != f"4{raw}:{polls}".encode():
                        self.oracle.violation("wrong poll", f"{self.name} wanted {raw}:{polls}, got {answer.body[:100]!r}")
                await asyncio.sleep(self.rng.random() * 0.1)
            if self.rng.random() < 0.5:
                early = self.early()
                await self.in_time(self.send(wire, upgrade(f"{self.base}?EIO=4&transport=websocket&sid={sid}") + framed(early)))
                answer = await self.in_time(wire.answer())
                if answer.status != 101:
                    raise Failed(f"upgrade status {answer.status}", f"{self.name}: {answer.start} {answer.body[:100]!r}")
                await self.ride(wire, until, early)
        finally:
            wire.close()

    async def post(self, wire, sid):
        body = self.rng.randbytes(self.rng.choice((1, 50, 2000, 40000, 200000, 900000)))
        number = f"{self.name}-post-{next(_numbers)}"
        shape = {"body": body} if self.rng.random() < 0.7 else {"chunks": self.cut(body)}
        answer = await self.in_time(self.ask(
            wire, "POST", f"{self.base}?EIO=4&transport=polling&sid={sid}", f"X-Number: {number}",
            f"X-SHA256: {hashlib.sha256(body).hexdigest()}", **shape))
        self.expect(answer, "post")
        if self.oracle.posts[number] != 1:
            self.oracle.violation("post lost", f"{number} was answered 200 and arrived {self.oracle.posts[number]} times")

    def cut(self, body):
        parts = []
        while body:
            size = self.rng.choice((1, 10, 1000, 16000, 65536))
            parts.append(body[:size])
            body = body[size:]
        return parts if len(parts) < 1000 else [b"".join(parts)]

    async def websocket(self, until):
        """A session that begins as a WebSocket."""
        since = self.oracle.now()
        wire = await self.in_time(self.open())
        try:
            early = self.early()
            await self.in_time(self.send(wire, upgrade(f"{self.base}?EIO=4&transport=websocket") + framed(early)))
            answer = await self.in_time(wire.answer())
            if answer.status != 101:
                if self.edge.any_disturbed(since):
                    return
                raise Failed("handshake refused", f"{self.name}: {answer.start} {answer.body[:80]!r}")
            opcode, _, packet = await self.in_time(wire.frame())
            if opcode == CLOSE:
                if self.edge.any_disturbed(since):
                    return
                raise Failed("closed at once", f"{self.name}: {packet!r}")
            self.endpoint, self.since = json.loads(packet[1:])["sid"].split("-")[0], since
            self.oracle.count("sessions")
            await self.ride(wire, until, early)
        except Ended:
            if self.endpoint is None and self.edge.any_disturbed(since):
                return
            raise
        finally:
            wire.close()

    def early(self):
        """Messages that follow the upgrade's head without waiting for its answer."""
        count = self.rng.choice((0, 0, 0, 1, 3, 6))
        most = self.rng.choice((100, 5000, 70000))
        return [self.rng.randbytes(self.rng.randrange(most)) for _ in range(count)]

    async def ride(self, wire, until, early):
        """Sends messages and takes their echoes, in order, until it has enough; closes then. `early` ones are on their way."""
        self.oracle.count("websockets")
        sent = asyncio.Queue()
        for payload in early:
            sent.put_nowait(payload)
        writer = asyncio.create_task(self.say(wire, sent, until))
        try:
            await self.listen(wire, sent)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def say(self, wire, sent, until):
        for _ in range(self.rng.randrange(1, 60)):
            if self.oracle.now() > until:
                break
            payload = self.rng.randbytes(self.rng.choice((0, 5, 125, 126, 3000, 65535, 65536, 150000)))
            sent.put_nowait(payload)
            data = frame(payload, BINARY)
            if self.rng.random() < 0.1:
                data = frame(b"beat", PING) + data
            await self.send(wire, data)
            await asyncio.sleep(self.rng.random() * self.rng.choice((0, 0.02, 0.3)))
        sent.put_nowait(None)
        await wire.send(frame(b"\x03\xe8", CLOSE))

    async def listen(self, wire, sent):
        is_slow = self.rng.random() < 0.1
        message = bytearray()
        while True:
            opcode, fin, payload = await self.in_time(wire.frame())
            if is_slow:
                await asyncio.sleep(self.rng.random() * 0.2)
            if opcode == CLOSE:
                return self.closed(payload, sent)
            if opcode in (PING, PONG):
                continue
            message += payload
            if not fin:
                continue
            expected = sent.get_nowait() if not sent.empty() else b"nothing was said"
            if bytes(message) != expected:
                self.oracle.violation("wrong echo", f"{self.name}: {len(message)} bytes, expected {len(expected or b'')}")
                return
            self.oracle.count("echoes")
            message.clear()

    def closed(self, payload, sent):
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        if code == 1000 and not sent.empty() and sent.get_nowait() is None:
            return
        self.oracle.count(f"closed {code}")
        if code not in (1001, 1012):
            raise Failed(f"close {code}", f"{self.name}: {payload!r}")
        raise Failed("closed", f"{self.name}: {code}")

    @contextlib.asynccontextmanager
    async def connection(self, opening):
        """(wire, since): of requests that any endpoint may serve. That it ends is a failure unless an endpoint was disturbed since."""
        wire = await self.in_time(opening)
        since = self.oracle.now()
        try:
            yield wire, since
        except Ended:
            if not self.edge.any_disturbed(since):
                raise
        finally:
            wire.close()

    async def plain(self, until):
        """Requests of other paths, several a connection, some pipelined."""
        async with self.connection(self.open()) as (wire, since):
            for _ in range(self.rng.randrange(1, 6)):
                if self.rng.random() < 0.3:
                    await self.pipeline(wire, since)
                else:
                    method = self.rng.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE"))
                    answer = await self.in_time(self.ask(wire, method, f"/other?size={self.rng.choice((0, 10, 5000))}"))
                    self.judge_any(answer, since)
                    if answer.status != 200:
                        return

    def judge_any(self, answer, since):
        """Of a request that any endpoint may serve."""
        if answer.status != 200 and not self.edge.any_disturbed(since):
            raise Failed(f"other status {answer.status}", f"{self.name}: {answer.start} {answer.body[:100]!r}")

    async def pipeline(self, wire, since):
        numbers = [f"{self.name}-{next(_numbers)}" for _ in range(self.rng.randrange(2, 40))]
        size = self.rng.choice((0, self.rng.randrange(1000)))
        await self.send(wire, b"".join(request("PUT", "/other?size=100", f"X-Ask: {number}", body=b"p" * size) for number in numbers))
        for number in numbers:
            answer = await self.in_time(wire.answer())
            self.judge_any(answer, since)
            if answer.get("x-answer") not in (None, number):
                self.oracle.violation("answer of another request", f"{number} got {answer.get('x-answer')}")
            if answer.get("connection") == "close":
                return

    async def uploads(self, until):
        """Bodies of other paths, whole or in chunks, with answers that are as large."""
        async with self.connection(self.open()) as (wire, since):
            for _ in range(self.rng.randrange(1, 4)):
                body = self.rng.randbytes(self.rng.choice((0, 1, 16384, 16385, *[self.rng.randrange(1, 990000) for _ in range(6)])))
                number = f"{self.name}-upload-{next(_numbers)}"
                shape = {"body": body} if self.rng.random() < 0.5 else {"chunks": self.cut(body)}
                answer = await self.in_time(self.ask(
                    wire, self.rng.choice(("POST", "PUT", "PATCH")), f"{self.rng.choice(('', '/secure'))}/upload?size={self.rng.choice((0, 100000))}",
                    f"X-Number: {number}", f"X-SHA256: {hashlib.sha256(body).hexdigest()}", **shape))
                self.judge_any(answer, since)
                if answer.status != 200 or answer.get("connection") == "close":
                    return

    async def download(self, until):
        """A large answer, taken slowly."""
        size = self.rng.choice((300000, 2000000))
        opening = Wire.open(self.port, tls=self.tls, receive_buffer=8192, seconds=HANG * self.oracle.patience)
        async with self.connection(opening) as (wire, since):
            await self.send(wire, request("GET", f"/other?size={size}"))
            head = wires.Message(await self.in_time(wire.until(b"\r\n\r\n")))
            if head.status != 200:
                return self.judge_any(head, since)
            await asyncio.sleep(self.rng.random() * 0.5)
            if head.get("transfer-encoding"):
                body = await self.in_time(wire.chunks())
            else:
                body = await self.in_time(wire.exactly(int(head.get("content-length"))))
            pattern = hashlib.sha256(str(size).encode()).digest()
            if body != (pattern * (size // 32 + 1))[:size]:
                self.oracle.violation("garbled download", f"{self.name}: {len(body)} bytes of {size}")

