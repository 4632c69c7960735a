"""Raw HTTP/1.1 and WebSocket bytes for tests of the proxy.

    Client ── bytes as the test writes them ──▶ sidrail-proxy ──▶ Endpoint: records each request, answers by script

Nothing here is lenient: what the proxy sends, either way, must be plain HTTP/1.1 with CRLF, or the reader fails.
"""
import base64
import contextlib
import hashlib
import os
import re
import socket
import threading
import time

from daemons import PATIENCE, free_port, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (b"GET /ws HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")
SILENCE = 0.2 * PATIENCE  # long enough for bytes that are on their way


def get(path="/other", *fields, method="GET", host="edge.test", body=None):
    """A request's bytes; `fields` are lines without CRLF."""
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + (body or b"")


def post(path="/other", body=b"40", *fields, host="edge.test"):
    return get(path, *fields, method="POST", host=host, body=body)


def switching(key=KEY, *fields):
    """The 101 that answers `key`."""
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
                        f"Sec-WebSocket-Accept: {accept}", *fields]).encode() + b"\r\n\r\n"


def frame(payload=b"", opcode=2, masked=True, fin=True, rsv=0):
    """A WebSocket frame; masked as a client's, unmasked as a server's."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    length = len(payload)
    mark = 0x80 if masked else 0
    if length < 126:
        head += bytes([mark | length])
    elif length < 65536:
        head += bytes([mark | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([mark | 127]) + length.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (length // 4 + 1))[:length]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")


class Message:
    """A head with its body."""

    def __init__(self, raw_head, body):
        start, *lines = raw_head.split(b"\r\n")
        self.start = start.decode("latin1")
        self.fields = []
        for line in lines:
            found = FIELD_LINE.fullmatch(line)
            assert found, f"not a field line: {line!r}"
            self.fields.append((found[1].decode(), found[2].decode("latin1")))
        self.body = body
        self.raw = raw_head + b"\r\n\r\n" + body

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def target(self):
        return self.start.split(" ")[1]

    @property
    def names(self):
        return [name.lower() for name, _ in self.fields]

    def all(self, name):
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def get(self, name):
        """The value of the one field of that name, or None."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} {len(values)} times: {self.raw[:500]!r}"
        return values[0] if values else None

    def __repr__(self):
        return f"<{self.raw[:300]!r}>"


class Reader:
    """Messages from a socket. EOFError: it ended before the message was whole."""

    def __init__(self, sock):
        self.sock = sock
        self.held = b""

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"ended after {self.held[-300:]!r}")
        self.held += data

    def exactly(self, size):
        parts, have = [self.held[:size]], min(size, len(self.held))
        self.held = self.held[size:]
        while have < size:
            data = self.sock.recv(min(1 << 20, size - have))
            if not data:
                raise EOFError(f"ended {size - have} bytes early")
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def until(self, mark):
        while mark not in self.held:
            self._more()
        found, self.held = self.held.split(mark, 1)
        return found

    def chunks(self):
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        assert self.until(b"\r\n") == b"", "trailers"
        return body

    def message(self, has_body=True, until_end=False):
        head = self.until(b"\r\n\r\n")
        message = Message(head, b"")
        if not has_body:
            return message
        if message.get("transfer-encoding") is not None:
            assert message.get("transfer-encoding") == "chunked" and message.get("content-length") is None
            message.body = self.chunks()
        elif message.get("content-length") is not None:
            message.body = self.exactly(int(message.get("content-length")))
        elif until_end:
            message.body = self.rest()
        message.raw += message.body
        return message

    def response(self, method="GET"):
        """The next final response; `interims` holds the heads of those before it."""
        interims = []
        while True:
            head = self.until(b"\r\n\r\n")
            message = Message(head, b"")
            if 100 <= message.status < 200 and message.status != 101:
                interims.append(message)
                continue
            self.held = head + b"\r\n\r\n" + self.held
            has_body = method != "HEAD" and message.status not in (101, 204, 304)
            message = self.message(has_body, until_end=has_body)
            message.interims = interims
            return message

    def rest(self):
        """All until the end."""
        data, self.held = self.held, b""
        while True:
            part = self.sock.recv(1 << 20)
            if not part:
                return data
            data += part

    def frame(self):
        """(first byte, payload) of an unmasked frame."""
        first, second = self.exactly(2)
        assert second & 0x80 == 0, "masked"
        length = second
        if second >= 126:
            length = int.from_bytes(self.exactly(2 if second == 126 else 8), "big")
        return first, self.exactly(length)


class Client(Reader):
    """A connection to the proxy, as its client. `source`: the address that it comes from."""

    def __init__(self, port, source=None, seconds=10.0, receive_buffer=None):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(seconds * PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_as_far_as_it_goes(self, data):
        """Sends; an end of the connection meanwhile is no error."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def finish(self):
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def ask(self, data, method="GET"):
        return self.send(data).response(method)

    def is_silent(self, seconds=SILENCE):
        """Whether nothing comes and the connection stays."""
        before = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            return self.held == b""
        finally:
            self.sock.settimeout(before)
        self.held += data
        return False

    def ends(self):
        """Reads to the end of the connection and returns what came; a reset is an end too."""
        try:
            return self.rest()
        except ConnectionResetError:
            return b""


class Endpoint:
    """Records what it is asked and answers by `answer`: bytes, or a function of (reader, request) that gives bytes,
    or None when it has written, or not, by itself. Requests are read one after the other."""

    def __init__(self, answer=OK, tls=None):
        self.tls = tls  # an SSLContext
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.answer = answer
        self.serve = None  # a function of (reader) in place of all that
        self.lock = threading.Lock()
        self.requests = []
        self.received = 0     # bytes, parsed or not
        self.connections = 0  # accepted
        self.open = 0
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
            with self.lock:
                self.connections += 1
                self.open += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.settimeout(60)
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            reader = CountingReader(connection, self)
            with connection:
                if self.serve is not None:
                    self.serve(reader)
                    return
                while True:
                    request = reader.message()
                    assert re.fullmatch(r"[A-Z]+ (/[!-~]*|\*) HTTP/1\.1", request.start), request.start
                    with self.lock:
                        self.requests.append(request)
                    answer = self.answer
                    answer = answer(reader, request) if callable(answer) else answer
                    if answer is not None:
                        connection.sendall(answer)
        except (EOFError, OSError):
            pass
        except Exception as error:  # shown by take()
            self.faults.append(repr(error))
        finally:
            with self.lock:
                self.open -= 1

    def take(self, count=1):
        """The next `count` requests, once they have come."""
        wait_until(lambda: self.faults or len(self.requests) >= count, f"the endpoint has {count} requests")
        assert not self.faults, self.faults
        with self.lock:
            taken, self.requests = self.requests[:count], self.requests[count:]
        return taken[0] if count == 1 else taken

    def reset(self, answer=OK):
        with self.lock:
            self.answer = answer
            self.requests, self.faults = [], []
            self.received = 0

    def close(self):
        """Stops listening; connections stay."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread, which close alone does not
        self.listener.close()


class CountingReader(Reader):
    """Tells the endpoint about every byte."""

    def __init__(self, sock, endpoint):
        super().__init__(sock)
        self.endpoint = endpoint

    def _more(self):
        before = len(self.held)
        super()._more()
        self.endpoint.received += len(self.held) - before


def elapsed(since):
    return time.monotonic() - since
