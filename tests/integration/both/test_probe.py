"""`probe URL` says whether a Socket.IO server, or a broker, works as a client finds it, and if not, which step failed."""
import subprocess

import pytest
from daemons import BUILD, free_port


def probe(daemon, url):
    done = subprocess.run([str(BUILD / f"sidrail-{daemon}"), "probe", url], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize("kind", ["flask", "node"])
def test_a_socket_io_server_passes_directly_and_through_the_proxy(servers, kind):
    pod = servers.pod(kind)
    proxy = servers.proxy([pod.address])
    for url in (f"http://{pod.address}", f"{proxy.url}/socket.io/"):
        code, out, err = probe("proxy", url)
        assert (code, err) == (0, "") and out.startswith("ok: handshake, upgrade and echo at "), (out, err)


def test_a_broker_passes_over_shards_and_as_the_hub(servers):
    for shards in ([], servers.redis_server(2)):
        broker = servers.broker(shards=[server.url for server in shards])
        code, out, err = probe("broker", f"redis://127.0.0.1:{broker.port}")
        assert (code, err) == (0, "") and out.startswith("ok: published and received at "), (out, err)


@pytest.mark.parametrize("daemon, url, words", [
    ("proxy", "http://127.0.0.1:{port}", "probe: handshake: cannot connect"),
    ("proxy", "ftp://127.0.0.1", "is not an http:// or https:// URL"),
    ("proxy", "http://127.0.0.1:{port}/a?b", "without a query"),
    ("broker", "redis://127.0.0.1:{port}", "probe: connect"),
    ("broker", "http://127.0.0.1:{port}", "must begin with redis://"),
])
def test_what_does_not_answer_is_one_line_and_exit_1(daemon, url, words):
    code, out, err = probe(daemon, url.format(port=free_port()))
    assert code == 1 and not out
    assert words in err and len(err.splitlines()) == 1, err


def test_a_server_that_is_no_socket_io_server_is_named_by_the_step(servers):
    pod = servers.pod("node")
    code, _, err = probe("proxy", f"http://{pod.address}/nothing-here/")
    assert code == 1 and err.startswith("probe: handshake: "), err
    proxy = servers.proxy([pod.address])
    code, _, err = probe("broker", f"redis://{proxy.url.removeprefix('http://')}")
    assert code == 1 and err.startswith("probe: subscribe "), err
