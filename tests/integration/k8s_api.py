"""A Kubernetes API server for tests, as far as EndpointSlices of one namespace are listed and watched.

    api = Api(port); api.put(slice("chat-1", [endpoint("u-1", "10.0.0.1")]))     watchers are told
    api.remove("chat-1")
    api.fail_with = 403 | 429 | 500 | …          every request gets that status
    api.compact()                                versions known so far are too old: 410 as an ERROR event
    api.expire_by_status = True                  … or as the status of the watch
    api.say(b"…")                                raw bytes into every watch
    api.silent = True                            requests are read and not answered
    api.trickle = True                           answers begin, go on by a byte now and then, and never end
    api.chop = True                              answers are cut into chunks of a few bytes
"""
import http.server
import json
import socket
import threading
import time
import urllib.parse


def endpoint(uid, address, ready=True, serving=None, terminating=False, hostname=None):
    conditions = {"ready": ready, "serving": ready if serving is None else serving, "terminating": terminating}
    made = {"addresses": [address], "conditions": conditions,
            "targetRef": {"kind": "Pod", "name": f"pod-{uid}", "namespace": "prod", "uid": uid}}
    if hostname:
        made["hostname"] = hostname
    return made


def slice_of(name, endpoints, ports=(("http", 80),), family="IPv4"):
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {"name": name, "namespace": "prod", "labels": {"kubernetes.io/service-name": "chat"},
                         "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": {"f:x": {"{}": 1}}}]},
            "endpoints": endpoints,
            "ports": [{"name": label, "port": port, "protocol": "TCP"} for label, port in ports]}


class Api:
    def __init__(self, port, page=None, tls=None, token=None, host="127.0.0.1"):
        self.lock = threading.Condition()
        self.slices, self.events = {}, []
        self.version, self.oldest = 10, 0
        self.page = page
        self.token = token
        self.fail_with, self.retry_after = None, None
        self.expire_by_status = self.chop = self.silent = self.trickle = False
        self.bookmarks = 0.0  # seconds between two
        self.requests = []  # (seconds, path, query)
        self.raw = []
        self.left = []  # seconds of each trickle that the proxy ended
        self.generation = 0  # of connections that may go on
        self.address = f"127.0.0.1:{port}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                try:
                    outer._serve(self)
                except OSError:
                    pass
                self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self.server = Server((host, port), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    # --- what a test does -------------------------------------------------------------------------------------

    def _change(self, kind, made):
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, json.dumps(made)))
        self.lock.notify_all()

    def put(self, made):
        with self.lock:
            name = made["metadata"]["name"]
            self._change("MODIFIED" if name in self.slices else "ADDED", made)
            self.slices[name] = made

    def remove(self, name):
        with self.lock:
            self._change("DELETED", self.slices.pop(name))

    def put_unseen(self, made=None, remove=None):
        """A change that happens while nobody watches, in history that is compacted away."""
        with self.lock:
            self.version += 5
            if made:
                self.slices[made["metadata"]["name"]] = made
            if remove:
                del self.slices[remove]
            self.oldest = self.version
            self.events.clear()

    def cut(self):
        """Ends all watches without a word."""
        with self.lock:
            self.generation += 1
            self.lock.notify_all()

    def say(self, raw):
        with self.lock:
            self.raw.append(raw)
            self.lock.notify_all()

    def lists(self):
        return [query for _, _, query in self.requests if "watch" not in query]

    def watches(self):
        return [query for _, _, query in self.requests if "watch" in query]

    def close(self):
        self.cut()
        self.server.shutdown()
        self.server.server_close()

    # --- what it answers --------------------------------------------------------------------------------------

    def _chunk(self, handler, data):
        step = 7 if self.chop and len(data) < 5000 else 65536
        for at in range(0, len(data), step):
            part = data[at:at + step]
            handler.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
        handler.wfile.flush()

    def _status(self, handler, code, reason, message, extra=()):
        body = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
                           "reason": reason, "code": code}).encode()
        handler.send_response(code)
        for name, value in extra:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _serve(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.requests.append((time.monotonic(), url.path, query))
        assert url.path == "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices", url.path
        assert query["labelSelector"] == "kubernetes.io/service-name=chat"
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self._status(handler, 401, "Unauthorized", "Unauthorized")
        if self.silent:
            time.sleep(60)
            return None
        if self.fail_with:
            extra = [("Retry-After", self.retry_after)] if self.retry_after else []
            return self._status(handler, self.fail_with, "Failure", "as the test wants it", extra)
        if self.trickle:
            return self._trickle(handler)
        return self._watch(handler, query) if "watch" in query else self._list(handler, query)

    def _trickle(self, handler):
        """White space, which is nothing to a watch and in a list; until the proxy hangs up, which is counted."""
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        began = time.monotonic()
        try:
            while self.trickle:
                self._chunk(handler, b"\n")
                time.sleep(0.2)
        except OSError:
            self.left.append(time.monotonic() - began)

    def _list(self, handler, query):
        with self.lock:
            names = sorted(self.slices)
            first = int(query.get("continue", "0"))
            size = self.page or int(query["limit"])
            more = str(first + size) if first + size < len(names) else ""
            items = [{key: value for key, value in self.slices[name].items() if key not in ("kind", "apiVersion")}
                     for name in names[first:first + size]]
            body = json.dumps({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                               "metadata": {"resourceVersion": str(self.version), "continue": more},
                               "items": items}).encode()
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._chunk(handler, body)
        handler.wfile.write(b"0\r\n\r\n")

    def _watch(self, handler, query):
        seen = int(query["resourceVersion"])
        ends = time.monotonic() + int(query["timeoutSeconds"])
        with self.lock:
            generation, said, expired = self.generation, len(self.raw), seen < self.oldest
        if expired and self.expire_by_status:
            return self._status(handler, 410, "Expired", "too old resource version")
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if expired:
            self._chunk(handler, json.dumps({"type": "ERROR", "object": {
                "kind": "Status", "status": "Failure", "message": f"too old resource version: {seen}",
                "reason": "Expired", "code": 410}}).encode() + b"\n")
            handler.wfile.write(b"0\r\n\r\n")
            return None
        marked = time.monotonic()
        while time.monotonic() < ends:
            with self.lock:
                self.lock.wait(0.05)
                if generation != self.generation:
                    return None
                told = [event for event in self.events if event[0] > seen]
                raw, said = self.raw[said:], len(self.raw)
            for version, kind, text in told:
                seen = version
                self._chunk(handler, b'{"type":"%s","object":%s}\n' % (kind.encode(), text.encode()))
            for piece in raw:
                self._chunk(handler, piece)
            if self.bookmarks and time.monotonic() > marked + self.bookmarks:
                marked = time.monotonic()
                with self.lock:
                    self.version += 1
                    seen = self.version
                self._chunk(handler, json.dumps({"type": "BOOKMARK", "object": {
                    "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                    "metadata": {"resourceVersion": str(seen)}}}).encode() + b"\n")
        handler.wfile.write(b"0\r\n\r\n")
        return None
