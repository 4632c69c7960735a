"""A small name server for tests, over UDP and TCP.

    server = NameServer(port); server.records[("chat.test", "A")] = ["10.0.0.1"]
    server.mode = "servfail" | "silent" | "garbage"      what every question gets instead

Answers over 512 bytes (1232 with EDNS) are cut by UDP and come whole by TCP."""
import socket
import socketserver
import struct
import threading

TYPES = {1: "A", 28: "AAAA", 33: "SRV"}


def name_bytes(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.rstrip(".").split(".")) + b"\0"


def record_bytes(kind, value):
    if kind == "A":
        return socket.inet_aton(value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    port, target = value
    return struct.pack(">HHH", 0, 33, port) + name_bytes(target)


class NameServer:
    def __init__(self, port):
        self.records = {}
        self.ttl = 5
        self.mode = "answer"
        self.asked = []
        self.asked_by_tcp = []
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self):
                question, sock = self.request
                answer = outer._answer(question, True)
                if answer is not None:
                    sock.sendto(answer, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            def handle(self):
                while True:
                    size = self.rfile.read(2)
                    if len(size) < 2:
                        return
                    answer = outer._answer(self.rfile.read(struct.unpack(">H", size)[0]), False)
                    if answer is not None:
                        self.wfile.write(struct.pack(">H", len(answer)) + answer)

        class TcpServer(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.address = f"127.0.0.1:{port}"
        self.servers = [socketserver.ThreadingUDPServer(("127.0.0.1", port), Udp), TcpServer(("127.0.0.1", port), Tcp)]
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def _answer(self, question, is_udp):
        number, _, _, _, _, extra = struct.unpack(">6H", question[:12])
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += question[at] + 1
        asked = question[12:at + 5]
        name, kind = ".".join(labels).lower(), TYPES.get(struct.unpack(">H", question[at + 1:at + 3])[0], "?")
        limit = 512 if extra == 0 else max(512, struct.unpack(">H", question[at + 8:at + 10])[0])
        self.asked.append((name, kind))
        if not is_udp:
            self.asked_by_tcp.append((name, kind))
        if self.mode == "silent":
            return None
        if self.mode == "garbage":
            return question[:2] + b"\x81\x80\0\1\0\7" + b"\xc0" * 40
        if self.mode == "servfail":
            return question[:2] + b"\x81\x82\0\1\0\0\0\0\0\0" + asked
        known = any(record == name for record, _ in self.records)
        rows = self.records.get((name, kind), [])
        body = b"".join(b"\xc0\x0c" + question[at + 1:at + 5] + struct.pack(">IH", self.ttl, len(data)) + data
                        for data in (record_bytes(kind, row) for row in rows))
        answer = struct.pack(">6H", number, 0x8180 | (0 if known else 3), 1, len(rows), 0, 0) + asked + body
        if is_udp and len(answer) > limit:
            return struct.pack(">6H", number, 0x8380, 1, 0, 0, 0) + asked
        return answer

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
