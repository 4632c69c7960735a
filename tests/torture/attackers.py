"""Hostile clients. What they get is theirs; that nobody else feels it is for the oracle to see.

Each attack is a coroutine of (attacker, rng); it ends by itself within seconds. They come from 127.0.0.2 and up.
"""
import asyncio
import json
import ssl

from http_tools import KEY
from sessions import request, upgrade
from wire import BINARY, CLOSE, Broken, Ended, Wire, frame

_CALM = (Ended, Broken, OSError, asyncio.TimeoutError, ssl.SSLError, ValueError)


class Attacker:
    def __init__(self, name, edge, oracle, rng, cases):
        self.name = name
        self.edge = edge
        self.oracle = oracle
        self.rng = rng
        self.cases = cases
        self.source = f"127.0.0.{rng.randrange(2, 9)}"

    async def run(self, until):
        while self.oracle.now() < until:
            attack = self.rng.choice(ATTACKS)
            wire = None
            try:
                wire = await self.open()
                await asyncio.wait_for(attack(self, wire, self.rng), 12)
            except _CALM:
                pass
            finally:
                if wire is not None:
                    self.leave(wire)
            self.oracle.count("attacks")
            await asyncio.sleep(self.rng.random() * 0.05)

    async def open(self):
        is_tls = self.rng.random() < self.edge.tls_share
        return await Wire.open(self.edge.tls_port if is_tls else self.edge.port, self.source,
                               self.edge.tls_context if is_tls else None, seconds=12)

    def leave(self, wire):
        if self.rng.random() < 0.5:
            wire.reset()
        else:
            wire.close()

    async def sip(self, wire, seconds=0.3):
        try:
            return await asyncio.wait_for(wire.reader.read(65536), seconds)
        except asyncio.TimeoutError:
            return b""


async def garbage(_self, wire, rng):
    await wire.send(rng.randbytes(rng.choice((1, 10, 1000, 60000))))
    await _self.sip(wire)


async def slow_head(_self, wire, rng):
    await wire.send(b"GET /other HTTP/1.1\r\nHost: edge.test\r\n")
    for _ in range(rng.randrange(1, 20)):
        await wire.send(b"X-Slow: 1\r\n")
        await asyncio.sleep(rng.random() * 0.3)


async def idle(_self, wire, rng):
    await _self.sip(wire, rng.random() * 4)


async def recorded_case(self, wire, rng):
    """A request of the collection, now and then with one byte changed."""
    raw = bytearray(rng.choice(self.cases))
    if rng.random() < 0.5 and raw:
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    await wire.send(bytes(raw))
    await self.sip(wire)


async def smuggler(self, wire, rng):
    """A second request hides where the body's end is in doubt; it must never reach an endpoint."""
    doubts = (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0;\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n00000000000000000\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    )
    number = rng.randrange(len(doubts))
    hidden = f"GET /smuggled/{number} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode()
    path = rng.choice((b"/other", b"/socket.io/?EIO=4&transport=polling&sid=x"))
    await wire.send(b"POST " + path + b" HTTP/1.1\r\nHost: edge.test\r\n" + doubts[number] + hidden)
    await self.sip(wire)


async def stalled_body(self, wire, rng):
    target = rng.choice(("/other", "/socket.io/?EIO=4&transport=polling&sid=nobody", "/socket.io/?EIO=4&transport=polling"))
    size = rng.choice((1000, 100000, 900000))
    await wire.send(f"POST {target} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: {size}\r\n\r\n".encode())
    await wire.send(b"x" * rng.randrange(size))
    await self.sip(wire, rng.random() * 6)


async def never_reads(self, wire, rng):
    await wire.send(request("GET", "/other?size=8000000"))
    await asyncio.sleep(rng.random() * 8)


async def pipeliner(self, wire, rng):
    await wire.send(request("GET", f"/other?size={rng.choice((0, 20000))}") * rng.randrange(2, 200))
    if rng.random() < 0.5:
        wire.finish()
    await self.sip(wire, rng.random())


async def leaver(self, wire, rng):
    """Goes at a random byte of a request, with a FIN or an RST."""
    data = rng.choice((request("POST", "/upload", body=b"y" * 50000), upgrade("/socket.io/?EIO=4&transport=websocket"),
                       request("GET", "/other?size=100000")))
    await wire.send(data[:rng.randrange(1, len(data) + 1)])
    if rng.random() < 0.4:
        wire.finish()
        await self.sip(wire, 1)


async def foreign_sid(self, wire, rng):
    """Sids that nobody gave, and ways to spell the path."""
    path = rng.choice(("/socket.io/", "/socket.io", "//socket.io/", "/socket.io/x", "/%73ocket.io/", "/./socket.io/",
                       "/other/../socket.io/", "/SOCKET.IO/"))
    name = rng.choice(("a", "b", "c", "zz"))
    tag = rng.choice(("", ".A" + "x" * 11, ".A" + "_" * 11, ".", "." * 13, "%00", ".Z" + "0" * 11))
    await wire.send(request(rng.choice(("GET", "POST", "PUT")), f"{path}?EIO=4&transport=polling&sid={name}-1-{tag}", "X-Attack: 1",
                            *rng.choice(([], ["Cookie: sidrail_chat=" + "A" * 29], ["Cookie: " + "a=b; " * 500]))))
    await self.sip(wire)


async def frames(self, wire, rng):
    """A WebSocket that breaks rules."""
    await wire.send(upgrade("/socket.io/?EIO=4&transport=websocket") + (frame(b"early", BINARY) if rng.random() < 0.5 else b""))
    await asyncio.wait_for(wire.until(b"\r\n\r\n"), 5)
    for _ in range(rng.randrange(1, 10)):
        kind = rng.randrange(7)
        if kind == 0:
            await wire.send(frame(b"unmasked", BINARY, masked=False))
        elif kind == 1:
            await wire.send(rng.randbytes(rng.randrange(1, 200)))
        elif kind == 2:
            await wire.send(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"mask" + b"z" * 1000)
        elif kind == 3:
            await wire.send(frame(b"part", BINARY, fin=False))
        elif kind == 4:
            await wire.send(frame(rng.randbytes(rng.randrange(126)), rng.randrange(3, 16)))
        elif kind == 5:
            await wire.send(frame(b"", CLOSE) + frame(b"after", BINARY))
        else:
            await wire.send(frame(rng.randbytes(100000), BINARY)[:rng.randrange(1, 100000)])
    if rng.random() < 0.3:
        wire.finish()
    await self.sip(wire, rng.random())


async def half_open(self, wire, rng):
    """A session whose client goes without a word after an upgrade; another connection plays with its sid."""
    await wire.send(request("GET", "/socket.io/?EIO=4&transport=polling"))
    answer = await asyncio.wait_for(wire.answer(), 5)
    sid = json.loads(answer.body[1:])["sid"]
    target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
    other = await self.open()
    try:
        for _ in range(rng.randrange(1, 8)):
            await rng.choice((wire, other)).send(request(rng.choice(("GET", "DELETE", "OPTIONS")), target))
        await other.send(upgrade(target.replace("polling", "websocket")))
        await wire.send(upgrade(target.replace("polling", "websocket")))
        await self.sip(other, rng.random())
    finally:
        self.leave(other)


async def rude_endpoint(self, wire, rng):
    """Has the rude endpoint do its worst, then asks for something ordinary on the same connection."""
    kind = rng.choice(self.edge.rude_kinds)
    target = rng.choice((f"/rude/x?kind={kind}", f"/rude/socket.io/?EIO=4&transport=polling&kind={kind}",
                         f"/rude/socket.io/?EIO=4&transport=websocket&kind={kind}"))
    if "websocket" in target or (kind.endswith("101") and rng.random() < 0.8):
        await wire.send(upgrade(target))
    else:
        await wire.send(request(rng.choice(("GET", "HEAD", "POST")), target, body=b"b" * rng.choice((0, 100, 30000))))
    await self.sip(wire, rng.random() * 2)
    await wire.send(request("GET", "/other?size=10"))
    await self.sip(wire)


async def wrong_protocol(self, wire, rng):
    """Plain HTTP to the TLS port, half a ClientHello, other protocols."""
    wire.close()
    port = rng.choice((self.edge.tls_port, self.edge.port))
    other = await Wire.open(port, self.source, seconds=12)
    hello = bytes.fromhex("16030100c8010000c40303") + rng.randbytes(200)
    try:
        await other.send(rng.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", hello, hello[:rng.randrange(1, 100)],
                                     b"SSH-2.0-x\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                     b"*1\r\n$4\r\nPING\r\n")))
        await self.sip(other, rng.random() * 3)
    finally:
        self.leave(other)


async def expects(self, wire, rng):
    await wire.send(request("POST", "/upload", rng.choice(("Expect: 100-continue", "Expect: something")), body=b"")[:-2]
                    .replace(b"Content-Length: 0", b"Content-Length: 70000") + b"\r\n")
    await self.sip(wire, 1)
    await wire.send(b"x" * rng.choice((0, 5, 70000)))
    await self.sip(wire)


async def bodies_where_none_belong(self, wire, rng):
    body = f"GET /smuggled HTTP/1.1\r\nHost: edge.test\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
    method = rng.choice(("GET", "HEAD", "OPTIONS", "DELETE"))
    path = rng.choice(("/other", "/socket.io/?EIO=4&transport=polling", "/nothing"))
    await wire.send(request(method, path, body=body) if rng.random() < 0.5 else request(method, path, chunks=[body]))
    await self.sip(wire)


async def many_headers(self, wire, rng):
    await wire.send(request("GET", "/other", *[f"X-{i}: {'v' * rng.randrange(40)}" for i in range(rng.choice((10, 90, 300, 2000)))]))
    await self.sip(wire)


ATTACKS = [garbage, slow_head, idle, recorded_case, smuggler, stalled_body, never_reads, pipeliner, leaver, foreign_sid, frames,
           half_open, rude_endpoint, rude_endpoint, wrong_protocol, expects, bodies_where_none_belong, many_headers]
