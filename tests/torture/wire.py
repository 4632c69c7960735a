"""Bytes of HTTP/1.1 and WebSocket over asyncio, written and read strictly.

    wire = await Wire.open(port, source="127.0.0.2", tls=context)
    await wire.send(request); answer = await wire.answer("GET")

A peer that breaks a rule of HTTP raises `Broken`; one that ends early raises `Ended`.
"""
import asyncio
import re
import socket
import struct

from http_tools import FIELD_LINE, frame  # noqa: F401  (frame: for those who import from here)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Ended(Exception):
    """The connection ended before what was awaited had come."""


class Broken(Exception):
    """The peer sent what is not plain HTTP/1.1 or not a WebSocket frame."""


class Message:
    """A head with its body."""

    def __init__(self, raw):
        start, *lines = raw.split(b"\r\n")
        self.start = start.decode("latin1")
        self.body = b""
        self.fields = {}
        for line in lines:
            found = FIELD_LINE.fullmatch(line)
            if not found:
                raise Broken(f"not a field line: {line!r} in {raw[:300]!r}")
            self.fields.setdefault(found[1].decode().lower(), []).append(found[2].decode("latin1"))

    def get(self, name, default=None):
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise Broken(f"{name} stands {len(values)} times after {self.start!r}")
        return values[0] if values else default

    @property
    def status(self):
        found = re.fullmatch(r"HTTP/1\.1 (\d{3})( .*)?", self.start)
        if not found:
            raise Broken(f"not a status line: {self.start!r}")
        return int(found[1])


class Wire:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.last = "nothing"  # what was read before, for reports

    @classmethod
    async def open(cls, port, source="127.0.0.1", tls=None, seconds=30, receive_buffer=None):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # many connections to one port: let the kernel choose the source port at connect()
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((source, 0))
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port)), seconds)
            options = {"ssl": tls, "server_hostname": "edge.test", "ssl_handshake_timeout": seconds} if tls else {}
            reader, writer = await asyncio.wait_for(asyncio.open_connection(sock=sock, limit=1 << 17, **options), seconds)
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)

    async def send(self, data):
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise Ended(f"while sending: {error!r}") from error

    async def dribble(self, data, rng, pause=0.002, most=40):
        """Sends in pieces of random sizes."""
        cuts = sorted(rng.sample(range(1, len(data)), min(most, rng.randrange(1, 6), len(data) - 1)))
        for begin, end in zip([0, *cuts], [*cuts, len(data)]):
            await self.send(data[begin:end])
            await asyncio.sleep(rng.random() * pause)

    async def exactly(self, size):
        try:
            return await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Ended(f"wanted {size} bytes: {error!r}") from error

    async def until(self, mark):
        try:
            return (await self.reader.readuntil(mark))[:-len(mark)]
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Ended(repr(error)) from error
        except asyncio.LimitOverrunError as error:
            seen = await self.reader.read(120)
            raise Broken(f"no {mark!r} within {error.consumed} bytes that begin with {seen!r}, behind {self.last}") from error

    async def chunks(self):
        body = bytearray()
        while True:
            line = await self.until(b"\r\n")
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
                raise Broken(f"not a chunk size: {line!r}")
            size = int(line, 16)
            if size == 0:
                if await self.until(b"\r\n") != b"":
                    raise Broken("trailers")
                return bytes(body)
            body += await self.exactly(size)
            if await self.exactly(2) != b"\r\n":
                raise Broken("no CRLF behind a chunk")

    async def rest(self):
        body = bytearray()
        try:
            while part := await self.reader.read(1 << 16):
                body += part
        except OSError as error:
            raise Ended(repr(error)) from error
        return bytes(body)

    async def body(self, message, until_end=False):
        coding, length = message.get("transfer-encoding"), message.get("content-length")
        if coding is not None:
            if coding != "chunked" or length is not None:
                raise Broken(f"framed as {coding!r} and {length!r}")
            return await self.chunks()
        if length is not None:
            if not length.isdigit():
                raise Broken(f"Content-Length {length!r}")
            return await self.exactly(int(length))
        return await self.rest() if until_end else b""

    async def request(self, pause=0.0):
        """The next request; nothing more of it is taken from the socket for a pause of so many seconds."""
        message = Message(await self.until(b"\r\n\r\n"))
        if pause:
            self.writer.transport.pause_reading()
            await asyncio.sleep(pause)
            self.writer.transport.resume_reading()
        message.body = await self.body(message)
        self.last = f"{message.start} {message.fields} and {len(message.body)} bytes"
        return message

    async def answer(self, method="GET"):
        """The next final response."""
        while True:
            message = Message(await self.until(b"\r\n\r\n"))
            status = message.status
            if status == 101 or not 100 <= status < 200:
                break
        if method != "HEAD" and status not in (101, 204, 304):
            message.body = await self.body(message, until_end=True)
        return message

    async def frame(self):
        """(opcode, fin, payload) of the next frame."""
        first, second = await self.exactly(2)
        length = second & 127
        if length == 126:
            length = struct.unpack(">H", await self.exactly(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", await self.exactly(8))[0]
        mask = await self.exactly(4) if second & 128 else None
        payload = await self.exactly(length)
        if mask:
            repeated = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
        return first & 15, bool(first & 128), payload

    def finish(self):
        """End of what is sent; the other direction goes on."""
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def reset(self):
        """RST, in place of an orderly end."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        self.writer.transport.abort()

    def close(self):
        self.writer.close()
