"""The client manager's package: over TLS, in forked children, with a python-socketio that it does not know."""
import concurrent.futures
import os
import subprocess
import textwrap
import threading

import pytest
from daemons import ENVIRONMENTS, ROOT, free_port, wait_until
from pod_process import PodProcess
from tls_tools import Authority

SOURCES = ROOT / "broker" / "python" / "src"
PYTHON = ENVIRONMENTS / "current" / "bin" / "python"


def run(code, *words):
    done = subprocess.run([PYTHON, "-c", textwrap.dedent(code), *words], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(SOURCES)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tls_url(broker, tmp_path):
    ca = Authority(tmp_path)
    cert, key = ca.issue("broker", ["IP:127.0.0.1"])
    port = free_port()
    broker([], config={"listeners": [{"address": f"127.0.0.1:{port}", "tls": {"cert": str(cert), "key": str(key)}}]})
    return f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca.crt}"


@pytest.mark.parametrize("loop", ["threading", "gevent"])
def test_threads_join_and_leave_rooms_over_tls_while_messages_come(tls_url, loop):
    process = PodProcess("current", loop, "sidrail", tls_url, 2)
    process.ready.result(30)
    wait_until(lambda: all(process.facts(pod)["greeted"] for pod in range(2)), "the pods are greeted")
    sids = [process.do(0, "connect") for _ in range(8)]
    is_over = threading.Event()

    def flood():
        while not is_over.is_set():
            process.do(1, "emit", room=None, data="x" * 2000)

    def walk(sid):
        """What is said in a room that was just entered comes, and in order."""
        for number in range(25):
            room = f"{sid} {number % 3}"
            process.do(0, "enter", sid=sid, room=room)
            process.do(1, "emit", room=room, data=number)
            wait_until(lambda number=number: not process.do(0, "lacks", sid=sid, data=[number]), "it has come")
            process.do(0, "leave", sid=sid, room=room)

    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        floods = [threads.submit(flood) for _ in range(2)]
        try:
            for walked in [threads.submit(walk, sid) for sid in sids]:
                walked.result(60)
        finally:
            is_over.set()
        for future in floods:
            future.result(60)
    received = process.received(0)
    for sid in sids:
        assert [data for data in received[sid] if isinstance(data, int)] == list(range(25))
    facts = process.facts(0)
    assert facts["greeted"]
    if loop == "threading":
        assert facts["writers"] == 1
    process.stop()


FORKED = """
    import os, sys, threading, time
    import socketio
    from sidrail_socketio import SidrailManager

    def wait(what):
        until = time.monotonic() + 20
        while not what():
            assert time.monotonic() < until
            time.sleep(0.01)

    manager = SidrailManager(sys.argv[1], channel="flask-socketio")
    server = socketio.Server(async_mode="threading", client_manager=manager)
    manager.initialize()
    wait(lambda: manager.is_greeted)
    parent = manager.host_id
    sock = manager._own_pubsub.connection._sock
    sent = []
    server.eio.send = server.eio.send_packet = lambda eio_sid, data, *_, **__: sent.append(str(data))
    held, is_forked = threading.Event(), threading.Event()

    def hold():  # locks may be held by other threads when it forks
        with manager._changed:
            held.set()
            is_forked.wait()

    threading.Thread(target=hold).start()
    held.wait()
    child = os.fork()
    is_forked.set()
    if child == 0:
        try:
            assert not manager.is_greeted and manager.host_id != parent
            sid = manager.connect("eio1", "/")
            wait(lambda: manager.is_greeted)
            server.enter_room(sid, "room")
            other = socketio.RedisManager(sys.argv[1], channel="flask-socketio", write_only=True)
            other.emit("said", "to the child", room="room")
            wait(lambda: sent)
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    # the parent's connection is as it was
    sid = manager.connect("eio2", "/")
    server.enter_room(sid, "room")
    socketio.RedisManager(sys.argv[1], channel="flask-socketio", write_only=True).emit("said", "to the parent", room="room")
    wait(lambda: sent)
    assert manager.is_greeted and manager.host_id == parent and manager._own_pubsub.connection._sock is sock
    print("well", flush=True)
    os._exit(0)
"""


def test_a_child_that_is_forked_after_initialize_listens_by_itself(tls_url):
    assert run(FORKED, tls_url) == "well\n"


def test_a_python_socketio_without_a_needed_part_is_refused_at_once():
    out = run("""
        import socketio
        del socketio.RedisManager._redis_connect
        try:
            import sidrail_socketio
        except ImportError as error:
            print(error)
    """)
    assert "python-socketio 5." in out and "RedisManager has no _redis_connect" in out


def test_reconnects_are_spread():
    out = run("""
        from sidrail_socketio.pod import RETRY_MAX, spread
        delays = [spread(RETRY_MAX) for _ in range(200)]
        print(all(RETRY_MAX / 2 <= delay <= RETRY_MAX for delay in delays), len({round(d, 1) for d in delays}) > 10)
    """)
    assert out == "True True\n"
