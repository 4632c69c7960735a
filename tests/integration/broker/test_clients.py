"""Clients that are slow, stuck, many or gone; the end of the broker; and what operators may say to it."""
import json
import signal
import subprocess
import threading
import time

import daemons
import pytest
from daemons import figure, free_port, wait_until
from resp_client import Error, Pod, Raw, command, emit, publish_all


def closed(broker, reason):
    return broker.metrics().get("sidrail_broker_clients_closed_total", reason=reason)


def flood(port, megabytes):
    payload = emit("r", ["p", "x" * 100_000])
    with Raw(port) as raw:
        for _ in range(megabytes * 10):
            assert not isinstance(raw.call("PUBLISH", "flask-socketio", payload), Error)


@pytest.mark.parametrize("shards", [0, 1], ids=["hub", "1 shard"])
def test_a_stuck_subscriber_is_closed_and_harms_nobody(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [], config={"slow_subscriber": {"bytes": "1MiB"}})
    stuck = Raw(b.port, receive_buffer=4096)
    stuck.call("SUBSCRIBE", "flask-socketio")
    pod = Pod(b.port)
    flood(b.port, 16)
    wait_until(lambda: closed(b, "slow_bytes") == 1, "the stuck one is closed")
    wait_until(lambda: len(pod.received) == 160, "the other has everything")
    stuck.close()
    pod.close()


def test_a_slow_subscriber_may_lose_its_oldest_messages_instead(broker):
    b = broker(config={"slow_subscriber": {"bytes": "1MiB", "policy": "drop_oldest"}})
    slow = Raw(b.port, receive_buffer=4096)
    slow.call("SUBSCRIBE", "flask-socketio")
    slow.send(command("PING", "x"))  # its answer must not be dropped
    payloads = [emit("r", ["p", number, "x" * 10_000]) for number in range(1500)]
    with Raw(b.port) as raw:
        for payload in payloads:
            raw.call("PUBLISH", "flask-socketio", payload)
    dropped = b.metrics().get("sidrail_broker_deliveries_dropped_total")
    assert dropped > 0
    numbers = []
    pongs = 0
    while not numbers or numbers[-1] != 1499:
        reply = slow.read()
        if reply[0] == b"pong":
            pongs += 1
        else:
            numbers.append(json.loads(reply[2])["data"][0][1])
    assert pongs == 1
    assert numbers == sorted(set(numbers)) and len(numbers) == 1500 - dropped
    assert numbers[0] == 0 and numbers[-50:] == list(range(1450, 1500))  # the oldest that were not yet sent
    assert closed(b, "slow_bytes") == 0
    slow.close()


def test_bytes_that_wait_too_long_end_a_subscriber(broker):
    b = broker(config={"slow_subscriber": {"age": "1s"}})
    stuck = Raw(b.port, receive_buffer=4096)
    stuck.call("SUBSCRIBE", "flask-socketio")
    flood(b.port, 8)
    wait_until(lambda: closed(b, "slow_age") == 1, "the stuck one is closed")
    stuck.close()


def test_a_publisher_that_reads_no_answers_is_held_and_not_forgotten(broker):
    b = broker()
    raw = Raw(b.port, receive_buffer=4096, timeout=0.5)
    request = command("ECHO", "x" * 1000)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            raw.socket.send(request)
            sent += 1
    assert b.pss() < 100 * 1024 * 1024
    raw.socket.settimeout(20)
    for _ in range(sent - 1):
        assert raw.read() == b"x" * 1000
    raw.close()


def test_over_the_limit_a_client_is_refused_with_redis_text(broker):
    b = broker(config={"limits": {"clients": 3}})
    raws = [Raw(b.port) for _ in range(3)]
    for raw in raws:
        assert raw.call("PING") == "PONG"
    with Raw(b.port) as fourth:
        assert fourth.read() == "ERR max number of clients reached"
    raws.pop().close()
    wait_until(lambda: b.status()["clients_open"] == 2, "there is room again")
    with Raw(b.port) as fourth:
        assert fourth.call("PING") == "PONG"
    for raw in raws:
        raw.close()


def test_a_unix_socket_serves_as_well(servers, tmp_path):
    path = tmp_path / "broker.sock"
    b = servers.broker(config={"listeners": [{"address": f"unix:{path}", "mode": "0600"}]})
    import redis
    client = redis.Redis(unix_socket_path=str(path))
    assert client.ping()
    assert path.stat().st_mode & 0o777 == 0o600
    client.close()
    b.stop()
    assert not path.exists()


@pytest.mark.smoke
@pytest.mark.parametrize("shards", [0, 2], ids=["hub", "2 shards"])
def test_sigterm_delivers_what_was_accepted_and_ends_well(redis_server, broker, shards):
    b = broker(redis_server(shards) if shards else [])
    pod = Pod(b.port)
    raw = Raw(b.port)
    count = figure(2000, 20000)
    raw.send(b"".join(command("PUBLISH", "flask-socketio", emit(f"r{i % 7}", ["p", i])) for i in range(count)))
    for _ in range(count):
        assert raw.read() == 1
    b.signal(signal.SIGTERM)
    assert b.wait_exit() == 0
    wait_until(lambda: pod.ended, "the pod is let go")
    assert sorted(data[1] for _, data in pod.received) == list(range(count))
    with pytest.raises((EOFError, OSError)):
        raw.read()
    pod.close()
    raw.close()


def test_while_draining_the_broker_is_unready_and_refuses_subscribers(redis_server, broker):
    server = redis_server()
    b = broker([server], config={"shutdown": {"deadline": "4s"}})
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    raw = Raw(b.port)
    pod = Pod(b.port)
    server.pause()
    publish_all(b.port, "p", ["r"], 1)
    b.signal(signal.SIGTERM)
    wait_until(lambda: daemons.http_get(b.admin + "/readyz")[0] == 503, "it is unready")
    assert raw.call("SUBSCRIBE", "x") == "ERR the broker is shutting down"
    server.resume()
    assert b.wait_exit() == 0
    assert pod.by_room()["r"] == [["p", 0]]
    raw.close()
    pod.close()


def test_messages_for_a_dead_shard_hold_the_end_no_longer_than_the_deadline_and_are_told(redis_server, broker):
    server = redis_server()
    b = broker([server], config={"shutdown": {"deadline": "1s"}})
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    server.kill()
    publish_all(b.port, "p", ["r"], 3)
    began = time.monotonic()
    b.signal(signal.SIGTERM)
    assert b.wait_exit() == 0
    assert 0.9 < time.monotonic() - began < 3 * daemons.PATIENCE
    assert "messages for shards that are down are lost messages=3" in b.log()


# --- the command line ----------------------------------------------------------------------------------------

BINARY = daemons.BUILD / "sidrail-broker"


def run(*words, stdin=None):
    return subprocess.run([BINARY, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=20)


def test_the_quick_start_needs_no_file(servers, redis_server):
    listen, admin = free_port(), free_port()
    server = daemons.Server("quick", [BINARY, "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}",
                                      "--shard", redis_server().url, "--shard", redis_server().url], servers.folder)
    server.is_ready = lambda: daemons.answers(listen)
    servers.start(server)
    status = json.loads(daemons.http_get(f"http://127.0.0.1:{admin}/status.json")[1])
    assert status["mode"] == "shards" and len(status["shards"]) == 2
    assert status["shards"][0]["name"].startswith("127.0.0.1:")


def test_mistakes_on_the_command_line_end_with_2_and_in_the_configuration_with_1(tmp_path):
    assert run("--nonsense").returncode == 2
    assert run("stray").returncode == 2
    assert run("ctl").returncode == 2
    file = tmp_path / "broker.yaml"
    file.write_text("listenrs: []\nspill: {age: 1h5}\nshards: [{url: 'http://x'}, {name: a, url: 'redis://h:99999'}]\n")
    result = run("--config", file, "--check")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 4, result.stderr
    assert all(line.startswith(f"{file}:") for line in lines)
    assert "listeners" in lines[0]
    file.write_text("channels: [a]\n")
    assert run("--config", file, "--check").returncode == 0
    assert run("--config", file, "--listen", "127.0.0.1:1").returncode == 2
    file.write_text("listeners: [{address: '127.0.0.1:1', users: [{name: a, password_file: /nonexistent}]}]\n")
    result = run("--config", file, "--check")
    assert result.returncode == 1 and "/nonexistent: No such file" in result.stderr


def test_an_address_in_use_is_one_line_and_status_1(broker):
    b = broker()
    result = run("--listen", b.address, "--admin", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(f"listeners[0].address: {b.address}: ")
    result = run("--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{b.admin_port}")
    assert result.returncode == 1
    assert "admin.address: " in result.stderr


def test_tables_and_versions_are_printed():
    assert run("--version").stdout.startswith("sidrail-broker ")
    assert "usage:" in run("--help").stdout
    assert "slow_subscriber.policy" in run("--print-options").stdout
    assert "sidrail_broker_deliveries_total" in run("--print-metrics").stdout


def test_explain_tells_where_a_message_goes():
    result = run("explain", "--shard", "redis://a:1", "--shard", "redis://b:2",
                 stdin=emit("lobby", 1).decode())
    told = json.loads(result.stdout)
    assert told["rooms"] == ["s:lobby"] and told["method"] == "emit" and told["encoding"] == "json"
    assert len(told["partitions"]) == 1 and told["shards"][0] in ("a:1", "b:2")
    assert json.loads(run("explain", stdin="not a message").stdout)["rooms"] is None


def ctl(broker, *words):
    return run("ctl", "--socket", broker.folder / f"{broker.name}.sock", *words)


def test_operators_see_clients_shards_interest_and_rooms(redis_server, broker):
    b = broker([redis_server()])
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    pod = Pod(b.port)
    publish_all(b.port, "p", ["lobby"], 10)
    wait_until(lambda: len(pod.received) == 10, "all is there")
    assert "mode         shards" in ctl(b, "status").stdout
    assert json.loads(ctl(b, "status", "--json").stdout)["counters"]["published"] == 10
    assert json.loads(ctl(b, "clients", "--json").stdout)["clients"][0]["delivered"] == 10
    shards = json.loads(ctl(b, "shards", "--json").stdout)["shards"]
    assert [(s["state"], s["published"], s["received"]) for s in shards] == [("up", 10, 10)]
    assert "flask-socketio" in ctl(b, "interest").stdout
    assert json.loads(ctl(b, "rooms", "--json").stdout)["rooms"][0] == {
        "room": "/ s:lobby", "messages": 10, "at_most_too_high": 0}
    assert ctl(b, "log-level", "warn").returncode == 0
    assert ctl(b, "log-level", "loud").returncode == 1
    assert ctl(b, "nonsense").returncode != 0
    pod.close()


def test_ctl_shutdown_returns_when_the_broker_has_ended(broker):
    b = broker()
    b.expect_death()
    result = []
    thread = threading.Thread(target=lambda: result.append(ctl(b, "shutdown")))
    thread.start()
    thread.join(20)
    assert result[0].returncode == 0, result[0].stderr
    assert b.wait_exit() == 0
