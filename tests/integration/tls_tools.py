"""Certificates for tests, and pods and Redis servers that serve TLS.

    ca = Authority(folder, "ca")            ca.crt
    ca.issue("chat", ["DNS:chat.test"])     chat.crt, chat.key; dates="past" for one that has expired
    TlsFlaskPod, TlsNodePod, TlsRedis       the servers of daemons.py behind such a certificate
"""
import json
import ssl
import subprocess
import urllib.request

from daemons import FlaskPod, NodePod, Redis

DATES = {"now": ("20240101000000Z", "20990101000000Z"), "past": ("20200101000000Z", "20200201000000Z")}


def _run(*words, cwd):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=cwd)


class Authority:
    """Signs certificates; all files are in `folder`."""

    def __init__(self, folder, name="ca"):
        self.name = name
        self.folder = folder
        self.crt = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        _run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.crt, cwd=folder)
        (folder / f"{name}.db").write_text("")

    def issue(self, name, names, dates="now"):
        """PEM files of a certificate for these subject alternative names: (crt, key)."""
        crt, key, request = (self.folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
        config = self.folder / f"{name}.cnf"
        config.write_text(f"""[ca]
default_ca = it
[it]
database = {self.name}.db
new_certs_dir = .
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = {",".join(names)}
""")
        _run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
             "-keyout", key, "-out", request, cwd=self.folder)
        begin, end = DATES[dates]
        _run("ca", "-batch", "-notext", "-config", config, "-cert", self.crt, "-keyfile", self.key, "-in", request, "-out", crt,
             "-startdate", begin, "-enddate", end, cwd=self.folder)
        return crt, key


def server_context(files, client_ca=None):
    """An SSLContext of a server that shows these (crt, key)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def client_context(ca, files=None):
    """An SSLContext of a client that trusts `ca` and may show these (crt, key)."""
    context = ssl.create_default_context(cafile=ca)
    if files:
        context.load_cert_chain(*files)
    return context


class _Tls:
    """What differs in a pod with TLS: how a test asks it."""

    client_files = None

    def facts(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.client_files:
            context.load_cert_chain(*self.client_files)
        with urllib.request.urlopen(f"https://{self.address}/pod", timeout=5, context=context) as answer:
            return json.loads(answer.read())

    def is_ready(self):
        return self.facts()["pod"] == self.env["POD_NAME"]


class TlsFlaskPod(_Tls, FlaskPod):
    """Flask-SocketIO under gunicorn with TLS; with `client_ca` it asks for a certificate, and tests show `client_files`."""

    def __init__(self, name, folder, files, client_ca=None, client_files=None, **options):
        super().__init__(name, folder, **options)
        self.argv[3:3] = ["--certfile", str(files[0]), "--keyfile", str(files[1])]
        if client_ca:
            self.argv[3:3] = ["--ca-certs", str(client_ca), "--cert-reqs", "2"]
            self.client_files = client_files


class TlsNodePod(_Tls, NodePod):
    """socket.io on Node behind https."""

    def __init__(self, name, folder, files, **options):
        super().__init__(name, folder, env={"POD_CERT": files[0], "POD_KEY": files[1]}, **options)


class TlsRedis(Redis):
    """A redis-server that speaks TLS only; with `client_ca` it asks for a certificate, and tests show `client_files`."""

    def __init__(self, name, folder, files, ca, client_ca=None, client_files=None, **options):
        self.ca = ca
        self.client_files = client_files
        args = ["--tls-cert-file", files[0], "--tls-key-file", files[1], "--tls-ca-cert-file", client_ca or ca,
                "--tls-auth-clients", "yes" if client_ca else "no"]
        super().__init__(name, folder, args=args, **options)
        place = self.argv.index("--port")
        self.argv[place:place + 2] = ["--port", "0", "--tls-port", str(self.port)]
        self.url = f"rediss://127.0.0.1:{self.port}"

    def client(self, **options):
        if self.client_files:
            options |= {"ssl_certfile": str(self.client_files[0]), "ssl_keyfile": str(self.client_files[1])}
        return super().client(ssl=True, ssl_ca_certs=str(self.ca), **options)

    def is_ready(self):
        with self.client(ssl_cert_reqs="none", ssl_check_hostname=False) as client:
            return client.ping()
