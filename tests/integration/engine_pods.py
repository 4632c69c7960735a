"""Endpoints that speak just enough Engine.IO to lose a session, and a client that keeps what it is given.

    pods = [EnginePod("a"), EnginePod("b")]          each knows the sids that it gave, and no other
    Browser(edge).open()   ─▶ Session: sid, pod      a handshake; the jar keeps the cookies of all of them
    session.poll()         ─▶ Message                any further request of it

Pods answer in the words of a server: dialect "node" or "python", body with its length or in chunks. Every response
names its pod in X-Pod, so that a test sees who answered; edge answers have none.
"""
import contextlib
import itertools
import json
import re
import threading
import urllib.parse

from http_tools import Client, Endpoint, frame, get, post, switching

POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
UPGRADE_FIELDS = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
TAGGED = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9])([A-Za-z0-9_-]{11})")
LOST = '{"code":1,"message":"Session ID unknown"}'

_numbers = itertools.count()


class EnginePod(Endpoint):
    def __init__(self, name, dialect="node", is_chunked=False, intervals=(25000, 20000)):
        self.name = name
        self.dialect = dialect
        self.is_chunked = is_chunked
        self.intervals = intervals
        self.sids = set()
        self.asked = []     # sids of later requests, as they came
        self.lines = []     # request lines
        self.hold = None    # an Event: polls wait for it
        super().__init__(self._answer)

    def _reply(self, status, body, *fields):
        body = body.encode()
        lines = [f"HTTP/1.1 {status}", f"X-Pod: {self.name}", *fields]
        if self.is_chunked:
            lines.append("Transfer-Encoding: chunked")
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _unknown(self, sid, is_upgrade):
        if self.dialect == "node" and is_upgrade:
            return (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-type: text/html\r\n"
                    b"Content-Length: 18\r\n\r\nSession ID unknown")
        if self.dialect == "node":
            return self._reply("400 Bad Request", LOST, "Content-Type: application/json")
        return self._reply("400 BAD REQUEST", f'"Invalid session {sid}"', "Content-Type: text/plain")

    def _open_packet(self):
        sid = f"{self.name}{next(_numbers):019d}"[:20]
        self.sids.add(sid)
        return sid, "0" + json.dumps({"sid": sid, "upgrades": ["websocket"], "pingInterval": self.intervals[0],
                                      "pingTimeout": self.intervals[1], "maxPayload": 1000000},
                                     separators=(",", ":"))

    def _echo_frames(self, reader):
        with contextlib.suppress(EOFError, OSError):
            while True:
                first, second = reader.exactly(2)
                mask, payload = reader.exactly(4), reader.exactly(second & 127)
                payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
                reader.sock.sendall(frame(payload, first & 15, masked=False))
        raise EOFError

    def _answer(self, reader, request):
        path, _, query = request.target.partition("?")
        self.lines.append(request.start)
        if not path.startswith("/socket.io/"):
            return self._reply("200 OK", self.name)
        if request.start.startswith("OPTIONS"):
            return self._reply("204 No Content", "")
        values = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        is_upgrade = request.get("upgrade") is not None
        if "sid" in values:
            self.asked.append(values["sid"])
            if values["sid"] not in self.sids:
                return self._unknown(values["sid"], is_upgrade)
            if is_upgrade:
                reader.sock.sendall(switching(request.get("sec-websocket-key"), f"X-Pod: {self.name}"))
                self._echo_frames(reader)
            if request.start.startswith("POST"):
                return self._reply("200 OK", "ok")
            if self.hold is not None:
                self.hold.wait(60)
            return self._reply("200 OK", "2", "Content-Type: text/plain; charset=UTF-8")
        sid, packet = self._open_packet()
        if is_upgrade:
            reader.sock.sendall(switching(request.get("sec-websocket-key"), f"X-Pod: {self.name}")
                                + frame(packet.encode(), 1, masked=False))
            self._echo_frames(reader)
        if values.get("EIO") == "3":
            packet = f"{len(packet)}:{packet}2:40"
        if "j" in values:
            packet = f"___eio[{values['j']}]({json.dumps(packet)});"
        return self._reply("200 OK", packet, "Content-Type: text/plain; charset=UTF-8")


class Session:
    """One Engine.IO session: the sid that the client was given, and the pod that gave it."""

    def __init__(self, browser, sid, pod, query):
        self.browser = browser
        self.sid = sid
        self.pod = pod
        self.query = query

    @property
    def bare(self):
        """The sid as its pod knows it."""
        found = TAGGED.fullmatch(self.sid)
        return found[1] if found else self.sid

    def poll(self, *fields, through=None, method="GET", path=None):
        path = path or f"/socket.io/?{self.query}&sid={self.sid}"
        return self.browser.ask(path, *fields, through=through, method=method)

    def post(self, *fields, through=None, body=b"3"):
        path = f"/socket.io/?{self.query}&sid={self.sid}"
        return self.browser.ask(path, *fields, through=through, method="POST", body=body)

    def upgrade(self, through=None):
        """Status and pod of the answer; the tunnel is closed again."""
        path = f"/socket.io/?EIO=4&transport=websocket&sid={self.sid}"
        return self.browser.ask(path, *UPGRADE_FIELDS, through=through)

    def is_at_home(self, through=None, *fields):
        answer = self.poll(*fields, through=through)
        return answer.status == 200 and answer.get("x-pod") == self.pod


class Browser:
    """A client with a cookie jar, or without."""

    def __init__(self, edge, jar=True, fields=()):
        self.edge = edge
        self.cookies = {} if jar else None
        self.fields = fields

    def ask(self, path, *fields, through=None, method="GET", body=None):
        lines = [*self.fields, *fields]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        with Client((through or self.edge).port) as client:
            made = post(path, body, *lines) if method == "POST" else get(path, *lines, method=method)
            answer = client.ask(made, method)
        if self.cookies is not None:
            for line in answer.all("set-cookie"):
                name, _, value = line.partition(";")[0].partition("=")
                self.cookies[name] = value
        return answer

    def handshake(self, *fields, query="EIO=4&transport=polling", through=None):
        """The answer to a handshake, whatever it is."""
        return self.ask(f"/socket.io/?{query}", *fields, through=through)

    def open(self, *fields, query="EIO=4&transport=polling", through=None):
        answer = self.handshake(*fields, query=query, through=through)
        assert answer.status == 200, answer
        sid = re.search(rb'sid\\?":\\?"([^"\\]+)', answer.body)[1].decode()
        return Session(self, sid, answer.get("x-pod"), query)


@contextlib.contextmanager
def engine_pods(*names, **options):
    made = [EnginePod(name, **options) for name in names]
    try:
        yield made
    finally:
        for pod in made:
            pod.close()


def static(pods, **facts):
    """Endpoints of a configuration: their name as id; facts by name: {"a": {"weight": 2}}."""
    return [{"address": pod.address, "id": pod.name, **facts.get(pod.name, {})} for pod in pods]


def upstream(pods, name="chat", options=None, **facts):
    return {"name": name, "discovery": {"static": static(pods, **facts)}, **(options or {})}


def lost_count(edge, reason):
    return edge.metrics().get("sidrail_proxy_route_refused_total", reason=reason)


def in_threads(count, work):
    """Runs work(i) in `count` threads; their exceptions are the caller's."""
    errors = []

    def run(i):
        try:
            work(i)
        except BaseException as error:  # handed on
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
