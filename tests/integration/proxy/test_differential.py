"""What the proxy forwards, everybody reads alike; what it refuses, nobody sees.

    case or generated request ──▶ sidrail-proxy ──▶ Judge ──┬─▶ the strict reader below
                                                           └─▶ Node's http server, which says what it parsed

Requests are made from a seed: valid heads and bodies of a small grammar, most of them then broken a little: a byte replaced,
doubled or lost, a line moved, a piece of hostile syntax put in, the end cut off. The oracle: an answer of the endpoint was
asked for by a request that both readers take for the same one; without such an answer not one byte came to the endpoint.
"""
import base64
import codecs
import json
import os
import random
import re
import socket
import threading
import time

import pytest
from daemons import PODS, ROOT, Server, figure, free_port, is_readable, sanitizer, wait_until
from http_tools import KEY

COUNT = figure(10_000, 100_000)
SEED = int(os.environ.get("SIDRAIL_SEED", "20"))
MARK = b"HTTP/1.1 200 OK\r\nX-Judge: 1\r\nContent-Length: 2\r\n\r\nok"
GROWTH_MAX = 2 << 20


class NotStrict(Exception):
    """What it says is wrong with a request."""


def strict_request(data):
    """(method, target, fields, body, length) of the request at the front of `data`; None when it is not whole. By RFC 9112
    without any of its leniency."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    words = re.fullmatch(rb"([A-Z]+) (/[\x21-\x7e]*|\*) HTTP/1\.1", start)
    if not words:
        raise NotStrict(f"start line {start!r}")
    fields = []
    for line in lines:
        parts = re.fullmatch(rb"([!#$%&'*+.^`|~0-9A-Za-z-]+): ((?:[\x21-\x7e\x80-\xff](?:[\t -~\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)", line)
        if not parts:
            raise NotStrict(f"field line {line!r}")
        fields.append((parts[1].decode(), parts[2].decode("latin1")))
    values = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    for name in ("host", "connection"):
        if len(values.get(name, [])) != 1:
            raise NotStrict(f"{name}: {values.get(name)}")
    if "transfer-encoding" in values:
        raise NotStrict("chunked towards an endpoint")
    lengths = values.get("content-length", ["0"])
    if len(lengths) != 1 or not re.fullmatch("0|[1-9][0-9]*", lengths[0]):
        raise NotStrict(f"lengths {lengths}")
    size = end + 4 + int(lengths[0])
    if len(data) < size:
        return None
    return words[1].decode(), words[2].decode(), fields, data[end + 4:size], size


class ParseEcho(Server):
    """Node's http server; tells what it parsed."""

    expected_status = (0, -15)

    def __init__(self, folder):
        self.port = free_port()
        super().__init__("parse-echo", ["node", "--max-http-header-size=262144", PODS / "parse_echo.js", self.port], folder)

    def is_ready(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


class Judge:
    """The endpoint: reads strictly, asks Node about the same bytes, compares, answers MARK."""

    def __init__(self, node_port):
        self.node_port = node_port
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.received = 0
        self.judged = 0
        self.partial = 0  # connections that ended within a body, as a streamed one may
        self.faults = []
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        held, node, asked = b"", None, 0
        with connection:
            try:
                while data := connection.recv(1 << 18):
                    self.received += len(data)
                    held += data
                    while (request := strict_request(held)) is not None:
                        if node is None:
                            node, asked = socket.create_connection(("127.0.0.1", self.node_port), timeout=30), 0
                            node.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        asked += 1
                        self._compare(node, asked, held[:request[4]], request)
                        if any(name.lower() == "upgrade" for name, _ in request[2]):
                            node.close()
                            node = None
                        held = held[request[4]:]
                        self.judged += 1
                        connection.sendall(MARK if request[0] != "HEAD" else MARK[:-2])
            except (NotStrict, AssertionError, ValueError) as error:
                self.faults.append(f"{error}; held: {held[:2000]!r}")
            except OSError:
                pass
            finally:
                if node is not None:
                    node.close()
                if held and b"\r\n\r\n" in held:
                    self.partial += 1
                elif held:
                    self.faults.append(f"half a head: {held[:2000]!r}")

    def _compare(self, node, asked, raw, request):
        node.sendall(raw)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = node.recv(1 << 18)
            if not data:
                raise NotStrict(f"Node ended the connection: {raw[:2000]!r}")
            answer += data
        assert answer.count(b"\r\n\r\n") == 1, f"Node answers more than one request: {raw[:2000]!r}"
        said = json.loads(base64.b64decode(re.search(rb"X-Parsed: (\S+)", answer)[1]))
        method, target, fields, body, _size = request
        flat = [text for field in fields for text in field]
        mine = {"number": asked, "method": method, "target": target, "version": "1.1", "fields": flat, "body": body.decode("latin1")}
        assert said == mine, f"Node read {said}, the strict reader {mine}"


# --- requests out of a grammar, and what breaks them ---------------------------------------------------------------

METHODS = ["GET"] * 5 + ["POST"] * 5 + ["PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
TARGETS = ["/", "/a", "/a/b?c=d&e", "/socket.io/?EIO=4&transport=polling&t=x", "/socket.io/?EIO=4&transport=polling&sid=abc",
           "/socket.io/?EIO=3&transport=polling&j=0", "/%2e%2e/x", "//x", "/a?b=/../c", "http://edge.test/abs?x", "/;a=b", "/a'b(c)*!$"]
FIELDS = ["Accept: */*", "Accept-Encoding: gzip, br", "Cookie: a=1; b=2", "Cookie: sidrail_chat=x; c=d", "X-Empty:", "X-Tab:\ta\tb ",
          "User-Agent: t (x; \"y\\\")", "X-High: J\xfcrgen\xa0", "Connection: keep-alive", "Connection: close, X-Hop", "X-Hop: 1",
          "X-Forwarded-For: 1.2.3.4", "X_Under: 1", "TE: trailers", "Keep-Alive: 5", "Via: 1.1 a", "Expect: 100-continue",
          "Max-Forwards: 2", "Content-Type: text/plain;charset=UTF-8", "Origin: http://a.test", "Upgrade: h2c", "Trailer: X", "X: ,,;=",
          "Proxy: x", "Forwarded: for=x", "X-Request-Id: q", "Referer: http://x/?a=\"b\""]
HOSTILE = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x7f", b"\x85", b"\xa0", b":", b";", b",", b"\"", b"\r\n ", b"\r\n\t", b"\r\r\n",
           b"\r\n\r\n", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
           b"Transfer-Encoding: identity\r\n", b"transfer-encoding: CHUNKED\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
           b"Content-Length: 5, 5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length: \r\n", b"Content_Length: 3\r\n", b"Host: other.test\r\n",
           b"Connection: content-length\r\n", b"GET /smuggled HTTP/1.1\r\nHost: s\r\n\r\n", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/0.9", b"%00", b"%0d%0a",
           b"#", b"\\", b"\xc4\x8d\xc4\x8a", b"-1", b"+1", b"00", b"ffffffffffffffff", b"Upgrade: websocket\r\n", b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"]


def valid(rng):
    """A request that is right."""
    method, target = rng.choice(METHODS), rng.choice(TARGETS)
    version = "1.0" if rng.random() < 0.05 else "1.1"
    lines = [f"{method} {target} HTTP/{version}"]
    fields = ["Host: edge.test"] + rng.sample(FIELDS, rng.randrange(6))
    body = b""
    if rng.random() < 0.04:
        fields = ["Host: edge.test", "Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
        lines = [f"GET {target} HTTP/1.1"]
    elif method in ("POST", "PUT", "PATCH") or rng.random() < 0.05:
        payload = bytes(rng.choice(b"4azAZ\r\n\0 :;0") for _ in range(rng.choice((0, 1, 2, 5, 20, 300))))
        if rng.random() < 0.5 and version == "1.1":
            fields.append(rng.choice(("Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: Chunked ")))
            body = chunked(rng, payload)
        else:
            fields.append(rng.choice(("Content-Length: {}", "content-length:{}", "Content-Length:\t{} ")).format(len(payload)))
            body = payload
    rng.shuffle(fields)
    return "\r\n".join(lines + fields).encode("latin1") + b"\r\n\r\n" + body


def chunked(rng, payload):
    out = b""
    while payload:
        size = rng.randint(1, len(payload))
        digits = f"{size:x}" if rng.random() < 0.5 else f"{size:03X}"
        out += digits.encode() + rng.choice((b"", b"", b";a=b", b';q="x;y"', b" ;a")) + b"\r\n" + payload[:size] + b"\r\n"
        payload = payload[size:]
    return out + b"0" + rng.choice((b"", b"00", b";end")) + b"\r\n" + rng.choice((b"", b"", b"X-T: 1\r\n", b"Content-Length: 9\r\n")) + b"\r\n"


def broken(rng, data):
    """The same, a little wrong."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.3:  # where it matters most
            edges = [found.start() for found in re.finditer(rb"\r\n|: |;", bytes(data))]
            at = rng.choice(edges) + rng.randrange(3) if edges else at
        kind = rng.randrange(8)
        if kind == 0:
            data[at:at + 1] = rng.choice(HOSTILE)
        elif kind in (1, 2):
            data[at:at] = rng.choice(HOSTILE)
        elif kind == 3:
            del data[at:at + rng.choice((1, 1, 2, 4))]
        elif kind == 4:
            data[at:at] = data[at:at + rng.choice((1, 2, 8))]
        elif kind == 5 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 6:
            lines = bytes(data).split(b"\r\n")
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            data = bytearray(b"\r\n".join(lines))
        else:
            lines = bytes(data).split(b"\r\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            data = bytearray(b"\r\n".join(lines))
    if rng.random() < 0.03:
        del data[rng.randrange(len(data) + 1):]
    return bytes(data)


def generated(seed, count):
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        data = valid(rng)
        if rng.random() < 0.8:
            data = broken(rng, data)
        if rng.random() < 0.1:
            data += valid(rng)
        yield f"{seed}-{number}", data, rng.randrange(len(data) + 1) if rng.random() < 0.2 else None


# --- the oracle --------------------------------------------------------------------------------------------------------


def converse(port, judge, data, split, patience):
    """Sends a case and reads all answers; the client ends its side once nothing more is on its way."""
    before = judge.received
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in (data,) if split is None else (data[:split], data[split:]):
                client.sendall(part)
            wait = patience
            while True:
                if not is_readable(client, wait):
                    if judge.received != before and not got:
                        before = judge.received
                        continue  # the endpoint is at it
                    break
                part = client.recv(1 << 18)
                if not part:
                    return bytes(got)
                got += part
                wait = 0.002 if patience < 1 else 0.1
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(1 << 18):
                got += part
        except OSError:
            pass
    return bytes(got)


def verdict(port, judge, data, split, patience=0.01):
    """None when all is well, else what is wrong; whether the endpoint answered."""
    judged, partial = judge.judged, judge.partial
    before = judge.received  # last: what comes of a case before has its partial after its bytes
    got = converse(port, judge, data, split, patience)
    if judge.faults:
        return judge.faults[0], False
    marks = got.count(b"X-Judge: 1\r\n")
    if marks == 0 and judge.received != before:
        wait_until(lambda: judge.partial > partial or judge.judged > judged or judge.faults, "the endpoint is let go", 5)
    if marks == 0 and judge.judged != judged:
        return f"{judge.received - before} bytes at the endpoint without an answer: {got[:300]!r}", False
    if marks > judge.judged - judged:
        return "more answers than requests", False
    rest = re.sub(rb"HTTP/1\.1 100 Continue\r\n\r\n", b"", got)
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", rest)
    if any(status not in (b"200", b"400", b"404", b"405", b"408", b"413", b"414", b"417", b"426", b"431", b"501", b"503", b"505", b"508")
           for status in statuses):
        return f"answers {statuses}", False
    return None, marks > 0


@pytest.fixture(scope="module")
def judged(module_servers):
    node = module_servers.start(ParseEcho(module_servers.folder))
    judge = Judge(node.port)
    proxy = module_servers.proxy([judge.address], config={
        "log": {"level": "warn", "access": "off"}, "timeouts": {"request_head": "5s", "poll": "20s"}, "limits": {"connections": 2000}})
    yield proxy, judge
    judge.listener.close()


def load_cases():
    for line in (ROOT / "tests" / "cases" / "smuggling-cases.jsonl").read_text().splitlines():
        case = json.loads(line)
        yield case["name"], codecs.escape_decode(case["raw"].encode("latin1"))[0], case["expect"]


def run(proxy, judge, cases, patience=0.01):
    """Runs them; a case that goes wrong is tried again with more patience, since the machine may have been slow."""
    forwarded, refused = 0, 0
    for name, data, split in cases:
        wrong, is_forwarded = verdict(proxy.port, judge, data, split, patience)
        if wrong and not judge.faults:
            time.sleep(0.3)
            wrong, is_forwarded = verdict(proxy.port, judge, data, split, patience=1.0)
        assert wrong is None, f"case {name}: {wrong}\nsent (split at {split}): {data!r}"
        forwarded += is_forwarded
        refused += not is_forwarded
    return forwarded, refused


def test_the_hostile_cases_are_read_alike_by_all(judged):
    proxy, judge = judged
    cases = list(load_cases())
    for name, data, expect in cases:
        forwarded, _refused = run(proxy, judge, [(name, data, None)], patience=0.5)
        if expect == "forward":
            assert forwarded == 1, name
        elif expect == "reject":
            assert forwarded == 0, name


def test_generated_requests_are_read_alike_by_all_and_leave_nothing_behind(judged, record_property):
    proxy, judge = judged
    run(proxy, judge, generated(f"warm-{SEED}", 500))
    memory = proxy.pss()
    forwarded, refused = run(proxy, judge, generated(SEED, COUNT))
    print(f"seed {SEED}: {forwarded} forwarded, {refused} refused, {judge.judged} judged")
    record_property("forwarded", forwarded)
    assert forwarded > COUNT / 10 and refused > COUNT / 10, "the generator makes one kind only"
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_clients_open") == 0, "every connection is gone")
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_buffered_bytes") == 0, "nothing is held")
    assert sanitizer() or proxy.pss() <= memory + GROWTH_MAX
