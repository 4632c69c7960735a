"""Peers on a unix socket are a trusted proxy if the listener says so; docs/nginx.md with a real nginx."""
import pathlib
import re
import shutil
import socket

import pytest
from daemons import Server, answers, free_port, wait_until
from engine_pods import POLLING, UPGRADE_FIELDS, WEBSOCKET, Browser, engine_pods, static
from http_tools import Client, Reader, get

DOC = pathlib.Path(__file__).resolve().parents[3] / "docs" / "nginx.md"
TOLD = ("X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: pub.test", "X-Forwarded-Port: 443")
LIES = ("X-Forwarded-Prefix: /x", "x-forwarded-server: a", "X-Forwarded-Ssl: on", "X-Forwarded-Scheme: https", "X-Forwarded: y",
        "X-Original-URL: /admin", "X-Original-URI: /admin", "X-Original-Host: a", "X-Rewrite-URL: /admin", "X-Script-Name: /x",
        "Script-Name: /x", "X-Scheme: https", "X-Url-Scheme: https", "Front-End-Https: on", "X-Client-IP: 1.1.1.1",
        "True-Client-IP: 1.1.1.1", "CF-Connecting-IP: 1.1.1.1", "X-Remote-User: root", "X-Forwarded-User: root",
        "X-Forwarded-Client-Cert: Subject=a", "X-SSL-Client-Verify: SUCCESS", "SSL-Client-Cert: a", "X_Forwarded_Prefix: /x",
        "Forwarded: for=1.1.1.1")
KEPT = ("X-Forward: 1", "X-Requested-With: XMLHttpRequest", "X-Custom: 1", "Authorization: Bearer x", "X-CSRFToken: 1")


def ask(path, request):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(request)
        return Reader(sock).response()


def unix_edge(configured, folder, **more):
    path = folder / "web.sock"
    proxy, endpoint = configured({"listeners": [{"address": f"unix:{path}", **more}],
                                  "access": {"deny": ["192.0.2.0/24"]}, "trusted_proxies": []})
    return path, proxy, endpoint


def test_who_connects_to_a_trusted_one_says_who_the_client_is(configured, tmp_path):
    path, _, endpoint = unix_edge(configured, tmp_path, trusted=True)
    assert ask(path, get("/x", *TOLD)).status == 403, "it is denied"
    told = [field.replace("192.0.2.9", "192.0.3.9") for field in TOLD]
    assert ask(path, get("/x", *told, "X-Forwarded-Prefix: /chat")).status == 200
    request = endpoint.take()
    assert request.all("x-forwarded-for") == ["192.0.3.9"] and request.get("x-real-ip") == "192.0.3.9"
    assert request.get("x-forwarded-proto") == "https" and request.get("x-forwarded-host") == "pub.test"
    assert request.get("x-forwarded-port") == "443" and request.get("x-forwarded-prefix") == "/chat"
    assert ask(path, get("/x")).status == 200
    request = endpoint.take()
    assert request.get("x-forwarded-for") is None and request.get("x-real-ip") is None


def test_who_connects_to_another_one_does_not(configured, tmp_path):
    path, _, endpoint = unix_edge(configured, tmp_path)
    assert ask(path, get("/x", *TOLD, "X-Forwarded-Prefix: /chat")).status == 200
    request = endpoint.take()
    assert request.get("x-forwarded-for") is None and request.get("x-forwarded-prefix") is None
    assert request.get("x-forwarded-proto") == "http" and request.get("x-forwarded-host") == "edge.test"


@pytest.mark.parametrize("source", [None, "127.0.0.2"], ids=["a stranger", "a trusted proxy"])
def test_only_trusted_proxies_speak_to_applications(edge, source):
    proxy, endpoint = edge
    for path, *more in (("/x",), (POLLING,), (WEBSOCKET, *UPGRADE_FIELDS)):
        with Client(proxy.port, source) as client:
            client.ask(get(path, *LIES, *KEPT, *more))
        names = {name.lower() for name in endpoint.take().names}
        lies = {field.partition(":")[0].lower() for field in LIES} - {"x_forwarded_prefix", "forwarded"}
        assert names >= {field.partition(":")[0].lower() for field in KEPT}
        assert names & lies == (lies if source else set())
        assert not names & {"x_forwarded_prefix", "forwarded"}


class Nginx(Server):
    """The configuration of the documentation, with this test's port and socket."""

    expected_status = (0,)

    def __init__(self, folder, unix):
        self.port = free_port()
        text = re.search(r"```nginx\n(.*?)```", DOC.read_text(), re.S)[1]
        text = text.replace("unix:/run/sidrail/web.sock", f"unix:{unix}").replace("listen 80;", f"listen 127.0.0.1:{self.port};")
        places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = folder / "nginx.conf"
        config.write_text(f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
                          f"events {{}}\nhttp {{\naccess_log off;\n{places}{text}}}\n")
        super().__init__("nginx", [shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin"), "-c", config], folder)

    def is_ready(self):
        return answers(self.port)


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin") is None, reason="there is no nginx")
def test_nginx_in_front_as_the_documentation_says(servers, tmp_path):
    unix = tmp_path / "web.sock"
    with engine_pods("a", "b") as pods:
        edge = servers.proxy([], config={"listeners": [{"address": f"unix:{unix}", "trusted": True}],
                                         "upstreams": [{"name": "chat", "discovery": {"static": static(pods)}}]})
        nginx = servers.start(Nginx(tmp_path, unix))
        asked = []
        for pod in pods:
            answer = pod.answer
            pod.answer = lambda reader, request, answer=answer: (asked.append(request), answer(reader, request))[1]
        for _ in range(4):
            session = Browser(nginx, jar=False).open("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Prefix: /evil")
            assert session.is_at_home() and session.post().status == 200
            upgraded = session.upgrade()
            assert upgraded.status == 101 and upgraded.get("x-pod") == session.pod
        assert {request.get("x-forwarded-for") for request in asked} == {"127.0.0.1"}
        assert {request.get("x-forwarded-prefix") for request in asked} == {None}
        assert {request.get("x-forwarded-port") for request in asked} == {str(nginx.port)}
        wait_until(lambda: edge.metrics().get("sidrail_proxy_upstream_session_unknown_total") == 0, "nothing is lost")
