"""The sid of a handshake is tagged whatever way the endpoint frames its answer, and cut off again before the endpoint.

    server                       handshake answer
    Werkzeug                     chunked in several segments, Connection: close
    gunicorn, gthread / gevent   chunked, keep-alive
    gevent's own, eventlet       Content-Length, head and body apart
    Node                         Content-Length

Two endpoints of a kind each, so that a lost tag is a lost session.
"""
import json
import re
import urllib.request

import pytest
from crowd import Crowd, wishes
from daemons import PODS, FlaskPod, python_of
from splitter import Splitter

TAGGED = re.compile(r"([A-Za-z0-9_-]{20})\.k[A-Za-z0-9_-]{11}")


class OwnServerPod(FlaskPod):
    """The Flask pod under the server that its async mode brings along."""

    def __init__(self, name, folder, mode):
        super().__init__(name, folder, "loops", env={"POD_ASYNC_MODE": mode})
        self.argv = [str(python_of("loops")), str(PODS / "flask_pod.py")]


class GunicornGeventPod(FlaskPod):
    """gunicorn's gevent worker."""

    def __init__(self, name, folder):
        super().__init__(name, folder, "loops", env={"POD_ASYNC_MODE": "gevent"})
        at = self.argv.index("--threads")
        self.argv[at:at + 2] = ["-k", "gevent"]


def pods_of(kind, servers):
    folder = servers.folder
    if kind == "werkzeug":
        made = [OwnServerPod(servers.name("pod"), folder, "threading") for _ in range(2)]
    elif kind in ("gevent", "eventlet"):
        made = [OwnServerPod(servers.name("pod"), folder, kind) for _ in range(2)]
    elif kind == "gunicorn gevent":
        made = [GunicornGeventPod(servers.name("pod"), folder) for _ in range(2)]
    else:
        return [servers.pod({"gunicorn gthread": "flask", "gunicorn 5.7": "flask", "node": "node"}[kind],
                            **({"environment": "sio57"} if kind == "gunicorn 5.7" else {})) for _ in range(2)]
    for pod in made:
        servers.start(pod, wait=False)
    for pod in made:
        pod.wait_ready()
    return made


def handshake(url):
    with urllib.request.urlopen(f"{url}/socket.io/?EIO=4&transport=polling", timeout=10) as answer:
        body = answer.read()
        length = answer.headers.get("Content-Length")
        assert length is None or int(length) == len(body)
    assert body[:1] == b"0"
    return json.loads(body[1:])


@pytest.mark.parametrize("kind", ["werkzeug", "gevent", "eventlet", "gunicorn gthread", "gunicorn gevent",
                                  "gunicorn 5.7", "node"])
def test_the_sid_is_tagged_and_the_tag_is_cut_off_again(servers, start, tmp_path, kind):
    keys = tmp_path / "k.keys"
    keys.write_text("k 00112233445566778899aabbccddeeff\n")
    keys.chmod(0o600)
    pods = pods_of(kind, servers)
    proxies = [servers.proxy(pods, keys=keys) for _ in range(2)]
    url = start(Splitter("splitter", servers.folder, proxies)).url
    direct, through = handshake(pods[0].url), handshake(url)
    assert TAGGED.fullmatch(through["sid"]), f"no tag in {through['sid']}"
    assert {**direct, "sid": ""} == {**through, "sid": ""}, "more than the sid was changed"
    transports = ("polling", "upgrade", "websocket")
    if kind == "gunicorn gevent":  # its worker answers upgrades with 500
        transports = ("polling",)
    clients = [w for library in ("js", "python") for transport in transports
               for w in wishes(library, transport, 2, [f"{library} {transport}"])]
    with Crowd(url, clients) as crowd:
        connected = crowd.connect()
        crowd.echo()
        answers = crowd.call("whoami")
        # before they leave: a client's next poll may come behind its own good-bye
        for proxy in proxies:
            metrics = proxy.metrics()
            assert metrics.get("sidrail_proxy_upstream_session_unknown_total") == 0
            assert metrics.get("sidrail_proxy_route_refused_total") == 0
    for name, about in connected.items():
        assert answers[name]["pod"] == about["pod"]
        assert "." not in answers[name]["engine_sid"], "the endpoint has seen the tag"
