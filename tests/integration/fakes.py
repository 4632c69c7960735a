"""Endpoints that do exactly what a test says, and a client that sends exactly what a test says.

    Endpoint(script)   calls script(connection) in a thread for each connection; records what each one received
    Client(port)       a socket with read_response()
"""
import base64
import hashlib
import socket
import struct
import threading
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Wire:
    """A socket with a buffer of what came and was not taken yet."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.received = bytearray()
        self.has_ended = False

    def send(self, *pieces, pause=0.0):
        for i, piece in enumerate(pieces):
            if i and pause:
                time.sleep(pause)
            self.sock.sendall(piece)

    def fill(self):
        """More bytes into the buffer; False at the end."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.has_ended = True
            return False
        self.buffer += data
        self.received += data
        return True

    def take(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise EOFError(f"wanted {count} bytes, got {self.buffer[:200]!r} and the end")
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def take_until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(f"no {mark!r} in {self.buffer[:200]!r}")
        return self.take(self.buffer.index(mark) + len(mark))

    def head(self):
        """(first line, {lower-case name: [values]})"""
        lines = self.take_until(b"\r\n\r\n")[:-4].decode("latin1").split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields.setdefault(name.lower(), []).append(value.strip())
        return lines[0], fields

    def body(self, fields):
        if "transfer-encoding" in fields:
            body = b""
            while True:
                size = int(self.take_until(b"\r\n")[:-2].split(b";")[0], 16)
                body += self.take(size)
                self.take_until(b"\r\n")
                if size == 0:
                    return body
        if "content-length" in fields:
            return self.take(int(fields["content-length"][0]))
        return b""

    def rest(self):
        while self.fill():
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    def frame(self):
        """(opcode, payload) of the next WebSocket frame."""
        first, second = self.take(2)
        size = second & 127
        if size == 126:
            size = struct.unpack(">H", self.take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.take(8))[0]
        mask = self.take(4) if second & 128 else None
        payload = self.take(size)
        if mask:
            payload = masked(payload, mask)
        return first & 15, payload

    def close(self):
        self.sock.close()


def masked(payload, mask):
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def frame(payload, opcode=2, mask=None, fin=True):
    first = bytes([(128 if fin else 0) | opcode])
    flag = 128 if mask else 0
    size = len(payload)
    if size < 126:
        head = first + bytes([flag | size])
    elif size < 65536:
        head = first + bytes([flag | 126]) + struct.pack(">H", size)
    else:
        head = first + bytes([flag | 127]) + struct.pack(">Q", size)
    return head + (mask + masked(payload, mask) if mask else payload)


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def switching(fields, more=b""):
    """The 101 that answers these request fields."""
    accept = accept_of(fields["sec-websocket-key"][0].encode())
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + more)


def ok(body=b"ok", extra=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), extra) + body


class Endpoint:
    """A listening socket; every connection runs `script` in its own thread."""

    def __init__(self, script, port=0, host="127.0.0.1"):
        self.script = script
        self.connections = []
        self.threads = []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        self.address = f"{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(sock)
            self.connections.append(wire)
            threading.Thread(target=self._run, args=(wire,), daemon=True).start()

    def _run(self, wire):
        try:
            self.script(wire)
        except (EOFError, OSError):
            pass
        finally:
            wire.close()

    def received(self):
        return b"".join(wire.received for wire in self.connections)

    def close(self):
        # shutdown wakes the accepting thread, which close alone does not
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for wire in self.connections:
            wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Client(Wire):
    def __init__(self, port, timeout=15):
        sock = socket.create_connection(("127.0.0.1", port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock)

    def response(self, method="GET"):
        """(status, fields, body); 1xx are skipped."""
        while True:
            line, fields = self.head()
            status = int(line.split(" ")[1])
            if status == 101 or status >= 200:
                break
        if method == "HEAD" or status in (101, 204, 304):
            return status, fields, b""
        if "content-length" in fields or "transfer-encoding" in fields:
            return status, fields, self.body(fields)
        return status, fields, self.rest()

    def get(self, target, extra=b"", method=b"GET"):
        self.send(method + b" " + target + b" HTTP/1.1\r\nHost: edge.test\r\n" + extra + b"\r\n")
        return self.response(method.decode())

    def upgrade(self, target=b"/socket.io/?EIO=4&transport=websocket", more=b"", extra=b""):
        self.send(b"GET " + target + b" HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n" + extra + b"\r\n" + more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
