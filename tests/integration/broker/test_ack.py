"""delivery.ack: shard answers a PUBLISH when Redis has; fast, as soon as the message has its place."""
import json
import subprocess
import threading
import time

import pytest
from daemons import BUILD, wait_until
from resp_client import Error, Pod, Raw, check_complete, command, emit, publish_all


@pytest.fixture
def made(redis_server, broker):
    def make(ack, count=1):
        servers = redis_server(count)
        b = broker(servers, config={"delivery": {"ack": ack}})
        wait_until(lambda: b.status()["shards_up"] == count, "shards are up")
        return servers, b

    return make


def answer_of(port, seconds):
    """When a PUBLISH was answered, seconds from now, and with what; None: not within `seconds`."""
    begun = time.monotonic()
    with Raw(port, timeout=seconds) as raw:
        try:
            reply = raw.call("PUBLISH", "flask-socketio", emit("r", ["p", 0]))
        except TimeoutError:
            return None
    return time.monotonic() - begun, reply


def test_a_publish_waits_for_its_shard_and_is_answered_with_it(made):
    servers, b = made("shard")
    pod = Pod(b.port)
    assert answer_of(b.port, 5)[1] == 1
    servers[0].pause()
    threading.Timer(0.6, servers[0].resume).start()
    took, reply = answer_of(b.port, 5)
    assert reply == 1 and took > 0.5
    wait_until(lambda: len(pod.received) == 2, "both are delivered, once")
    pod.close()


def test_fast_does_not_wait(made):
    servers, b = made("fast")
    servers[0].pause()
    assert answer_of(b.port, 5)[1] == 0
    servers[0].resume()


def test_what_a_lost_shard_does_not_confirm_is_confirmed_by_the_standby(made):
    servers, b = made("shard", 2)
    home = next(i for i, shard in enumerate(b.status()["shards"]) if is_home(b, shard["name"]))
    servers[home].pause()
    took, reply = answer_of(b.port, 6)
    assert reply == 0 and took > 0.5
    servers[home].resume()


def is_home(b, shard):
    out = subprocess.run([BUILD / "sidrail-broker", "explain", "--config", b.config_path], input=emit("r", ["p", 0]),
                         capture_output=True, check=True).stdout
    return json.loads(out)["shards"] == [shard]


def test_what_no_shard_confirms_in_4_seconds_is_told_and_still_sent(made):
    servers, b = made("shard")
    pod = Pod(b.port)
    servers[0].kill()
    took, reply = answer_of(b.port, 8)
    assert isinstance(reply, Error) and "not confirmed" in reply and 3.5 < took < 7
    servers[0].start()
    wait_until(lambda: b.status()["spill_bytes"] == 0, "it is sent")
    wait_until(lambda: len(pod.received) == 1, "it is delivered")
    pod.close()


def test_what_a_shard_refuses_is_refused(redis_server, broker):
    server = redis_server()
    b = broker([server], config={"delivery": {"ack": "shard"}})
    wait_until(lambda: b.status()["shards_up"] == 1, "shards are up")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels", "&sidrail1:default:c",
                               "&sidrail1:default:o:*")
    assert answer_of(b.port, 5)[1] == "ERR refused by its shard"


def test_pipelined_publishes_of_many_connections_are_all_answered_in_order(made):
    servers, b = made("shard", 2)
    pod = Pod(b.port)
    rooms = [f"room {i}" for i in range(8)]
    threads = [threading.Thread(target=publish_all, args=(b.port, f"p{i}", rooms, 20)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(pod.received) == 1600, "all is there")
    check_complete(pod, [f"p{i}" for i in range(10)], rooms, 20)
    pod.close()


def test_a_publisher_that_leaves_before_its_answer_has_published(made):
    servers, b = made("shard")
    pod = Pod(b.port)
    with Raw(b.port) as raw:
        raw.send(command("PUBLISH", "flask-socketio", emit("r", ["p", 0])))
    wait_until(lambda: len(pod.received) == 1, "it is delivered")
    pod.close()
