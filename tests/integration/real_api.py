"""A real Kubernetes API server for tests: tests/k8s/apiserver over etcd, and a relay between it and the proxy.

    etcd = Etcd("etcd", folder); etcd.compact()
    api = ApiServer("api", folder, etcd)       .put(slice) .remove(name): as controllers write; .tokens({token: role})
    relay = ApiRelay(api)                      plain HTTP in front, TLS behind
    relay.requests, relay.events               [query, …], [type, …]
    relay.say(b"…")                            a chunk of its own into every watch
    relay.answers = [(429, "Retry-After: 2"), …]    instead of the server's, one a request
    relay.before = function(query)             called before a request goes on
"""
import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.parse

from daemons import Server, free_port, wait_until

API_SERVER = os.environ.get("SIDRAIL_APISERVER", "")
CRD = os.path.join(os.path.dirname(__file__), "..", "k8s", "endpoint_slice_crd.json")
GROUP = "/apis/discovery.k8s.io/v1"


class Etcd(Server):
    expected_status = (0, -15)

    def __init__(self, name, folder):
        self.port, peer = free_port(), free_port()
        own, others = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer}"
        super().__init__(name, ["etcd", "--data-dir", f"{folder}/{name}", "--listen-client-urls", own,
                                "--advertise-client-urls", own, "--listen-peer-urls", others,
                                "--initial-advertise-peer-urls", others, "--initial-cluster", f"default={others}",
                                "--unsafe-no-fsync"], folder)

    def call(self, what, **body):
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        client.request("POST", f"/v3/{what}", json.dumps(body))
        return json.loads(client.getresponse().read())

    def is_ready(self):
        try:
            return "header" in self.call("maintenance/status")
        except OSError:
            return False

    def compact(self):
        """Forgets all history up to now."""
        self.call("kv/put", key="eA==", value="eA==")
        revision = self.call("kv/range", key="eA==")["header"]["revision"]
        assert "error" not in self.call("kv/compaction", revision=revision, physical=True)


class ApiServer(Server):
    stop_seconds = 30.0

    def __init__(self, name, folder, etcd, pair, cache=True):
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.token_file = f"{folder}/{name}.tokens"
        self.tokens({})
        super().__init__(name, [API_SERVER, "--etcd-servers", f"http://127.0.0.1:{etcd.port}", "--etcd-prefix", f"/{name}",
                                "--secure-port", self.port, "--bind-address", "127.0.0.1", "--tls-cert-file", pair[0],
                                "--tls-private-key-file", pair[1], f"--watch-cache={str(cache).lower()}",
                                "--tokens", self.token_file], folder)

    def tokens(self, roles):
        with open(self.token_file + ".new", "w", encoding="utf-8") as file:
            file.write("".join(f"{token} {role}\n" for token, role in {"root": "admin", **roles}.items()))
        os.replace(self.token_file + ".new", self.token_file)

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=ssl._create_unverified_context())

    def call(self, method, path, body=None):
        client = self.connect()
        client.request(method, path, body and json.dumps(body), {"Authorization": "Bearer root",
                                                                 "Content-Type": "application/json"})
        answer = client.getresponse()
        text = answer.read()
        client.close()
        return answer.status, json.loads(text) if text[:1] == b"{" else text

    def is_ready(self):
        try:
            if self.call("GET", f"{GROUP}/endpointslices?limit=1")[0] == 200:
                return True
            with open(CRD, encoding="utf-8") as file:
                self.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json.load(file))
        except OSError:
            pass
        time.sleep(0.1)
        return False

    def put(self, made, namespace="prod"):
        made["metadata"]["namespace"] = namespace
        made["metadata"].pop("managedFields", None)
        place = f"{GROUP}/namespaces/{namespace}/endpointslices"
        status, old = self.call("GET", f"{place}/{made['metadata']['name']}")
        if status == 200:
            made["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            status, text = self.call("PUT", f"{place}/{made['metadata']['name']}", made)
        else:
            status, text = self.call("POST", place, made)
        assert status in (200, 201), text

    def remove(self, name, namespace="prod"):
        assert self.call("DELETE", f"{GROUP}/namespaces/{namespace}/endpointslices/{name}")[0] == 200


class ApiRelay:
    def __init__(self, api):
        self.api = api
        self.requests, self.times, self.events, self.answers = [], [], [], []
        self.before = lambda query: None
        self.watching = {}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def lists(self):
        return [query for query in self.requests if "watch" not in query]

    def watches(self):
        return [query for query in self.requests if "watch" in query]

    def say(self, raw):
        with self.lock:
            assert self.watching, "nobody watches"
            for wire in self.watching.values():
                wire.sendall(b"%x\r\n" % len(raw) + raw + b"\r\n")

    def cut(self):
        with self.lock:
            for wire in self.watching.values():
                with contextlib.suppress(OSError):  # the proxy was faster
                    wire.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                head += wire.recv(65536) or b"\r\n\r\n"
            if head.startswith(b"GET "):
                self._answer(wire, head)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            wire.close()

    def _answer(self, wire, head):
        target = head.split(b" ")[1].decode()
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
        self.times.append(time.monotonic())
        self.requests.append(query)
        if self.answers:
            status, field = self.answers.pop(0)
            wire.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{field}\r\n\r\n".encode())
            return
        self.before(query)
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        client = self.api.connect()
        client.timeout = 60
        client.request("GET", target, headers=fields)
        answer = client.getresponse()
        wire.sendall(f"HTTP/1.1 {answer.status} {answer.reason}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        if "watch" in query and answer.status == 200:
            self._watch(wire, answer)
        else:
            text = answer.read()
            wire.sendall(b"%x\r\n" % len(text) + text + b"\r\n0\r\n\r\n")
        client.close()

    def _watch(self, wire, answer):
        with self.lock:
            self.watching[id(wire)] = wire
        try:
            while line := answer.readline():
                with self.lock:
                    self.events.append(json.loads(line)["type"])
                    wire.sendall(b"%x\r\n" % len(line) + line + b"\r\n")
            with self.lock:
                wire.sendall(b"0\r\n\r\n")
        finally:
            with self.lock:
                del self.watching[id(wire)]


def wait_watching(relay):
    wait_until(lambda: relay.watching, "it watches")
