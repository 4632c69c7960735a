"""Listeners with TLS: unmodified clients with rediss:// URLs, certificates of both sides, and the promises of replay and of
slow subscribers, which count bytes that TLS changes."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
import socketio
from client_programs import PYTHON_ASYNC, PYTHON_SYNC, run_python
from daemons import BUILD, figure, free_port, is_full, wait_until
from named_pods import Listener, number_of
from resp_client import Raw, command, emit
from tls_tools import Authority, TlsRedis, client_context

NAMES = ["DNS:broker.test", "DNS:localhost", "IP:127.0.0.1"]


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def files(ca):
    return ca.issue("broker", NAMES)


@pytest.fixture
def tls_broker(broker, files, ca):
    """A broker with a plain listener at .port and one with TLS at .tls_port, for which .tls is a client's context."""
    def make(shards=(), tls=None, users=None, config=None):
        port, tls_port = free_port(), free_port()
        secure = {"address": f"127.0.0.1:{tls_port}",
                  "tls": {"cert": str(files[0]), "key": str(files[1]), **(tls or {})}}
        if users:
            secure["users"] = users
        made = broker(shards, config={"listeners": [{"address": f"127.0.0.1:{port}"}, secure], **(config or {})})
        made.port, made.tls_port = port, tls_port
        made.tls = client_context(ca.crt)
        made.tls_url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={ca.crt}"
        return made
    return make


def closed(broker, reason):
    return broker.metrics().get("sidrail_broker_clients_closed_total", reason=reason)


@pytest.mark.parametrize("environment", ["redis3", "redis6", "current"])
def test_redis_py_works_unmodified_over_tls(tls_broker, environment):
    b = tls_broker()
    run_python(environment, PYTHON_SYNC, b.tls_url)
    if environment != "redis3":
        run_python(environment, PYTHON_ASYNC, b.tls_url)


def test_valkey_py_works_unmodified_over_tls(tls_broker):
    run_python("valkey", PYTHON_SYNC.replace("redis", "valkey"), tls_broker().tls_url.replace("rediss://", "valkeys://"))


def test_pods_with_a_rediss_url_over_a_shard_with_tls_hear_each_other(tls_broker, servers, ca, files, pod):
    shard = servers.start(TlsRedis("tls-redis", servers.folder, files, ca.crt))
    b = tls_broker([{"name": "a", "url": shard.url, "tls": {"ca": str(ca.crt)}}])
    first, second = (pod("flask", queue=b.tls_url) for _ in range(2))
    client = socketio.Client()
    heard = []
    client.on("said", heard.append)
    client.connect(first.url)

    def is_heard():
        second.emit(None, first=-1)
        return wait_until(lambda: any(said["number"] == -1 for said in heard), "it is heard", 1)

    wait_until(is_heard, "the pod has subscribed")
    second.emit(None, first=0, count=300, size=2000)
    wait_until(lambda: sum(said["number"] >= 0 for said in heard) == 300, "everything is there")
    time.sleep(0.2)
    assert [said["number"] for said in heard if said["number"] >= 0] == list(range(300))
    client.disconnect()


def test_requests_and_messages_of_every_size_pass(tls_broker):
    b = tls_broker()
    sizes = [0, 1, 100, 16_383, 16_384, 16_385, 70_000, 1_000_000, 9_000_000, 3]
    with Raw(b.tls_port, tls=b.tls) as pod, Raw(b.tls_port, tls=b.tls) as raw:
        pod.call("SUBSCRIBE", "c")
        reader = threading.Thread(target=lambda: got.extend(len(pod.read()[2]) for _ in sizes * 2))
        got = []
        reader.start()
        raw.send(b"".join(command("PUBLISH", "c", "x" * size) for size in sizes))  # in one pipeline
        assert [raw.read() for _ in sizes] == [1] * len(sizes)
        for byte in command("PUBLISH", "c", ""):
            raw.send(bytes([byte]))  # a record a byte
        assert raw.read() == 1
        for size in sizes[1:]:
            assert raw.call("PUBLISH", "c", "x" * size) == 1
        reader.join(20)
        assert got == sizes * 2


def test_what_is_not_tls_is_closed_and_counted(tls_broker):
    b = tls_broker()
    with Raw(b.tls_port) as raw:
        with pytest.raises((EOFError, ConnectionError, AssertionError)):
            raw.call("PING")
    b.wait_log("TLS refused why=.*does not speak TLS")
    wait_until(lambda: closed(b, "tls_failed") == 1, "it is counted")
    with pytest.raises(ssl.SSLCertVerificationError):
        Raw(b.tls_port, tls=ssl.create_default_context())  # does not trust us
    b.wait_log("TLS refused why=.*unknown ca")
    wait_until(lambda: closed(b, "tls_failed") == 2, "it is counted")
    Raw(b.tls_port).close()  # a look whether the port is open
    wait_until(lambda: closed(b, "peer") >= 1, "that is no failure")
    assert closed(b, "tls_failed") == 2
    with Raw(b.tls_port, tls=b.tls) as raw:
        assert raw.call("PING") == "PONG"


def test_with_a_client_ca_only_who_shows_its_certificate_is_let_in(tls_broker, ca, tmp_path):
    b = tls_broker(tls={"client_ca": str(ca.crt)})
    stranger = Authority(tmp_path, "strangers").issue("stranger", ["DNS:pod.test"])
    for context in (b.tls, client_context(ca.crt, stranger)):
        with pytest.raises((EOFError, OSError)):
            Raw(b.tls_port, tls=context).call("PING")
    wait_until(lambda: closed(b, "tls_failed") == 2, "both are counted")
    with Raw(b.tls_port, tls=client_context(ca.crt, ca.issue("pod", ["DNS:pod.test"]))) as raw:
        assert raw.call("PING") == "PONG"


def test_users_are_asked_for_their_password_over_tls(tls_broker, tmp_path):
    (tmp_path / "pods").write_text("secret\n")
    b = tls_broker(users=[{"name": "pods", "password_file": str(tmp_path / "pods")}])
    with Raw(b.tls_port, tls=b.tls) as raw:
        assert raw.call("PUBLISH", "a", "b").startswith("NOAUTH")
        assert raw.call("AUTH", "pods", "secret") == "OK"
        assert raw.call("PUBLISH", "a", "b") == 0


def test_a_certificate_is_exchanged_by_its_files_while_clients_stay(tls_broker, ca, files, tmp_path):
    b = tls_broker()

    def serial():
        with Raw(b.tls_port, tls=b.tls) as raw:
            return raw.socket.getpeercert()["serialNumber"]

    with Raw(b.tls_port, tls=b.tls) as raw:
        raw.call("SUBSCRIBE", "c")
        before = serial()
        shutil.copy(files[0], tmp_path / "kept.crt")
        files[0].write_text("no certificate")
        b.wait_log("not reloaded, the old configuration stays.*listeners.1..tls certificate .*broker.crt")
        assert serial() == before
        for new, old in zip(ca.issue("next", NAMES), files):
            os.replace(new, old)
        wait_until(lambda: serial() != before, "new clients see the new one")
        with Raw(b.port) as publisher:
            assert publisher.call("PUBLISH", "c", "x") == 1
        assert raw.read() == [b"message", b"c", b"x"]


def test_a_tls_pod_whose_connection_is_shut_down_misses_nothing_and_sees_nothing_twice(tls_broker):
    b = tls_broker()
    silent = Raw(b.tls_port)
    listener = Listener(b.tls_url + "&client_name=pod-1")
    wait_until(lambda: b.status()["subscribers"] == 1, "it is subscribed")
    count = 500 * figure(5, 60)
    due = time.monotonic() + 1
    with Raw(b.port) as raw:
        for number in range(count):
            size = number % 50 * 40 if number % 100 else 60_000
            assert isinstance(raw.call("PUBLISH", "flask-socketio", emit("r" + "x" * size, number)), int)
            if time.monotonic() > due:
                listener.shut_down()
                due += 1
            time.sleep(0.0012)
    wait_until(lambda: len(listener.received) >= count, "everything is there", 10)
    time.sleep(0.3)
    assert listener.received == list(range(count))
    assert listener.reconnects >= 3
    assert b.metrics().get("sidrail_broker_messages_replayed_total") > 0
    listener.close()
    if is_full():
        wait_until(lambda: closed(b, "tls_failed") == 1, "who says nothing is closed", 12)
    silent.close()


def test_what_a_tls_pod_has_not_read_when_it_is_cut_off_comes_once(tls_broker):
    b = tls_broker()

    def subscribe():
        raw = Raw(b.tls_port, tls=b.tls, receive_buffer=8192)
        raw.call("CLIENT", "SETNAME", "pod-1")
        raw.call("SUBSCRIBE", "flask-socketio")
        return raw

    raw = subscribe()
    count = 400
    with Raw(b.port) as publisher:
        for number in range(count):
            publisher.call("PUBLISH", "flask-socketio", emit("r" + "x" * 20_000, number))
    numbers = [number_of(raw.read()[2]) for _ in range(5)]
    with socket.socket(fileno=os.dup(raw.socket.fileno())) as same:
        same.shutdown(socket.SHUT_WR)  # reads what its kernel has, and what is under way
    try:
        while True:
            numbers.append(number_of(raw.read()[2]))
    except (EOFError, OSError, ValueError):
        pass
    raw.close()
    assert len(numbers) < count
    with subscribe() as again:
        while numbers[-1] != count - 1:
            numbers.append(number_of(again.read()[2]))
    assert numbers == list(range(count))


def test_a_slow_tls_subscriber_loses_its_oldest_messages_and_no_part_of_one(tls_broker):
    b = tls_broker(config={"slow_subscriber": {"bytes": "1MiB", "policy": "drop_oldest"}})
    slow = Raw(b.tls_port, tls=b.tls, receive_buffer=4096)
    slow.call("SUBSCRIBE", "flask-socketio")
    with Raw(b.port) as raw:
        for number in range(3000):
            raw.call("PUBLISH", "flask-socketio", emit("r", ["p", number, "x" * (number % 5 * 1000)]))
    dropped = b.metrics().get("sidrail_broker_deliveries_dropped_total")
    assert dropped > 0
    numbers = []
    while not numbers or numbers[-1] != 2999:
        numbers.append(json.loads(slow.read()[2])["data"][0][1])
    assert numbers == sorted(set(numbers)) and len(numbers) == 3000 - dropped
    slow.close()


def test_many_handshakes_at_once_delay_nobody_who_is_connected(tls_broker):
    b = tls_broker()
    many = [socket.create_connection(("127.0.0.1", b.tls_port)) for _ in range(200)]
    hello = []
    for sock in many:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = b.tls.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello.append((sock, outgoing.read()))
    with Raw(b.port) as raw:
        for sock, data in hello:
            sock.sendall(data)
        assert raw.call("PING") == "PONG"
    for sock in many:
        sock.settimeout(20)
        assert sock.recv(1) == b"\x16"  # each is answered
        sock.close()


def test_the_probe_works_over_tls_at_the_broker(tls_broker, ca):
    b = tls_broker()
    done = subprocess.run([BUILD / "sidrail-broker", "probe", f"rediss://localhost:{b.tls_port}"], capture_output=True,
                          text=True, timeout=60, env={"SSL_CERT_FILE": str(ca.crt)})
    assert done.returncode == 0 and done.stdout.startswith("ok:"), done.stderr


@pytest.mark.parametrize("tls, said", [
    ("{cert: /none.crt, key: /none.key}", "listeners[0].tls cannot open certificate /none.crt: No such file or directory"),
    ("{cert: CERT}", "listeners[0].tls.key"),
    ("{cert: CERT, key: OTHER}", "does not belong to certificate"),
    ("{cert: CERT, key: KEY, client_ca: /none.crt}", "listeners[0].tls cannot open client CA /none.crt: No such file"),
])
def test_check_names_file_line_and_option(tls, said, files, ca, tmp_path):
    other = ca.issue("other", NAMES)
    for word, path in (("CERT", files[0]), ("KEY", files[1]), ("OTHER", other[1])):
        tls = tls.replace(word, str(path))
    config = tmp_path / "broker.yaml"
    config.write_text(f"log: {{level: info}}\nlisteners:\n  - {{address: '127.0.0.1:1', tls: {tls}}}\n")
    done = subprocess.run([BUILD / "sidrail-broker", "--config", config, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(f"{config}:3:") and said in done.stderr, done.stderr
