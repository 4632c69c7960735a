"""Every hostile case of tests/cases/ against the real proxy.

    tests/cases/smuggling-cases.jsonl ──▶ sidrail-proxy ──▶ an endpoint that records each byte
                       status, answer ◀──             ◀── tests/cases/response-cases.jsonl

A request that must be refused gets an error of the right class and leaves no byte at the endpoint; one that must be
forwarded arrives normalised, and the strict reader below reads it as one request. A response that must not be passed on
becomes a 502, a broken one an aborted connection.
"""
import codecs
import json
import re
import socket
import threading
import time

import pytest
from daemons import PATIENCE, ROOT, free_port, wait_until

CASES = ROOT / "tests" / "cases"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUESTS = {
    "GET": b"GET /other HTTP/1.1\r\nHost: edge.test\r\n\r\n",
    "HEAD": b"HEAD /other HTTP/1.1\r\nHost: edge.test\r\n\r\n",
    "POST": b"POST /other HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 2\r\n\r\n40",
    "UPGRADE": (b"GET /other HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"),
}
NEVER_FORWARDED = ("keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "expect", "proxy",
                   "proxy-authorization", "forwarded")


def load(name):
    cases = []
    for line in (CASES / name).read_text().splitlines():
        case = json.loads(line)
        case["bytes"] = codecs.escape_decode(case["raw"].encode("latin1"))[0]
        cases.append(case)
    return cases


REQUEST_CASES = load("smuggling-cases.jsonl")
RESPONSE_CASES = load("response-cases.jsonl")


class Recorder:
    """An endpoint that keeps what it receives, a list of bytes a connection since the last take(), and answers each
    request with `answer`."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.answer = ANSWER
        self.received = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        entry = bytearray()
        answered = 0
        with connection:
            connection.settimeout(30)
            try:
                while data := connection.recv(65536):
                    with self.lock:
                        if not any(known is entry for known in self.received):
                            entry, answered = bytearray(), 0  # a connection used again after a take()
                            self.received.append(entry)
                        entry += data
                    while (end := request_end(bytes(entry), answered)) is not None:
                        answered = end
                        connection.sendall(self.answer)
                        if self.answer is not ANSWER:
                            connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def take(self):
        """What came since the last call."""
        with self.lock:
            taken, self.received = [bytes(entry) for entry in self.received], []
        return taken

    def close(self):
        self.listener.close()


def request_end(data, begin):
    """Where the request at `begin` ends, by the framing that the proxy may use; None when it is not whole."""
    head = data.find(b"\r\n\r\n", begin)
    if head < 0:
        return None
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", data[begin:head + 2])
    end = head + 4 + (int(length.group(1)) if length else 0)
    if re.search(rb"\r\nTransfer-Encoding: chunked\r\n", data[begin:head + 2]):
        last = data.find(b"0\r\n\r\n", head + 4)
        return None if last < 0 else last + 5
    return end if end <= len(data) else None


def read_strictly(data):
    """The requests in `data`, as (start line, [(name, value)], body); anything that is not plain HTTP/1.1 fails."""
    requests, begin = [], 0
    while begin < len(data):
        end = request_end(data, begin)
        assert end is not None, f"not a whole request: {data[begin:begin + 200]!r}"
        head, body = data[begin:end].split(b"\r\n\r\n", 1)
        start, *lines = head.split(b"\r\n")
        assert re.fullmatch(rb"[A-Z]+ /[!-~]* HTTP/1\.1", start), start
        fields = []
        for line in lines:
            assert re.fullmatch(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*", line), line
            name, value = line.decode("latin1").split(": ", 1)
            assert value == value.strip(" \t"), line
            fields.append((name.lower(), value))
        requests.append((start.decode(), fields, body))
        begin = end
    return requests


def exchange(port, data, half_closes=False, seconds=3.0):
    """Sends `data` and returns all that comes until the proxy closes, or is silent behind a whole answer."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=seconds * PATIENCE) as client:
        try:
            client.sendall(data)
            if half_closes:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused while it was still sent
        client.settimeout(0.15 * PATIENCE)
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            try:
                part = client.recv(65536)
            except socket.timeout:
                if b"\r\n\r\n" in got:
                    return bytes(got), False
                continue
            except OSError:
                return bytes(got), True
            if not part:
                return bytes(got), True
            got += part
    return bytes(got), False


def status_of(answer):
    found = re.match(rb"HTTP/1\.1 (\d{3})[ \r]", answer)
    return int(found.group(1)) if found else None


@pytest.fixture(scope="module")
def edge(module_servers):
    recorder = Recorder()
    proxy = module_servers.proxy([recorder.address],
                                 config={"timeouts": {"request_head": "1s"}, "limits": {"body_bytes": 1000000}})
    yield proxy, recorder
    recorder.close()


def allowed_statuses(case):
    named = {int(text) for text in re.findall(r"\b[45]\d\d\b", case["why"])}
    return {400} | {status for status in named if status in (405, 408, 413, 414, 417, 426, 431, 501, 505)} \
        | ({413} if "body limit" in case["why"] else set())


@pytest.mark.parametrize("case", [c for c in REQUEST_CASES if c["expect"] == "reject"], ids=lambda c: c["name"])
def test_a_refused_request_leaves_the_endpoint_untouched(edge, case):
    proxy, recorder = edge
    recorder.answer = ANSWER
    recorder.take()
    truncated = "truncated" in case["name"]
    answer, closed = exchange(proxy.port, case["bytes"], half_closes=truncated)
    status = status_of(answer)
    if not (truncated and status is None and closed):
        assert status in allowed_statuses(case), f"{answer[:200]!r}, {case['why']}"
    assert recorder.take() == []
    assert b"200 OK" not in answer


@pytest.mark.parametrize("case", [c for c in REQUEST_CASES if c["expect"] == "forward"], ids=lambda c: c["name"])
def test_a_good_request_arrives_normalised(edge, case):
    proxy, recorder = edge
    recorder.answer = ANSWER
    recorder.take()
    data = case["bytes"]
    answer, _ = exchange(proxy.port, data)
    assert status_of(answer) in (100, 200), answer[:200]
    received = wait_until(recorder.take, "the endpoint has the request")
    requests = [request for entry in received for request in read_strictly(entry)]
    assert len(requests) == (2 if case["name"] == "base-pipelined-two" else 1)
    for start, fields, body in requests:
        names = [name for name, _ in fields]
        is_upgrade = case["name"] == "up-ok"
        assert not set(names) & set(NEVER_FORWARDED), names
        assert names.count("host") == 1 and names.count("connection") == 1 and names.count("content-length") <= 1
        assert ("upgrade" in names) == is_upgrade
        assert dict(fields)["x-forwarded-for"] == "127.0.0.1"
        assert dict(fields)["host"] == ("real.test" if "absolute" in case["name"] else "edge.test")
        assert not any("_" in name for name in names)
        if start.startswith("POST"):
            assert int(dict(fields)["content-length"]) == len(body)
            assert body == (b"40" if "smuggled" not in case["name"] else data.split(b"\r\n\r\n", 1)[1])
        else:
            assert body == b""


def wanted_answer(case):
    return {"bad-gateway": "502", "abort": "abort", "forward": "forward"}[case["expect"]]


@pytest.mark.parametrize("case", RESPONSE_CASES, ids=lambda c: c["name"])
def test_a_response_is_passed_on_refused_or_aborted(edge, case):
    proxy, recorder = edge
    recorder.answer = case["bytes"]
    recorder.take()
    answer, closed = exchange(proxy.port, REQUESTS[case["request"]])
    final = re.sub(rb"^(HTTP/1\.1 1(?!01)\d\d[^\r]*\r\n(?:[^\r]+\r\n)*\r\n)*", b"", answer)
    if wanted_answer(case) == "502":
        assert status_of(final) == 502, answer[:200]
    elif wanted_answer(case) == "abort":
        assert closed and status_of(final) in (None, 200, 502), answer[:200]
        assert not final.endswith(b"0\r\n\r\n")
    else:
        lines = [line for line in case["bytes"].split(b"\r\n\r\n") if line.startswith(b"HTTP/1")]
        finals = [line for line in lines if not re.match(rb"HTTP/1\.\d 1\d\d", line)]
        assert status_of(final) == int(finals[0][9:12]), answer[:200]
        assert b"X-Hop" not in final and b"Keep-Alive: " not in final and b"EXTRA" not in final
        assert final.count(b"HTTP/1.1 ") == 1, "a second answer came through"
        if case["name"] == "set-cookie-many":
            assert final.count(b"Set-Cookie: ") == 2
    # nothing of this stays behind for the next client
    recorder.answer = ANSWER
    answer, _ = exchange(proxy.port, REQUESTS["GET"])
    assert status_of(answer) == 200 and answer.endswith(b"ok"), answer[:200]
