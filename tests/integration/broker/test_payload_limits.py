"""Brokers with different limits.payload on one Redis: what one accepts the other delivers, or, over what any broker reads, skips
and counts; links stay, and everything else comes."""
from broker_tools import wait_up
from daemons import wait_until
from resp_client import Pod, Raw, emit

MEGABYTE = 2**20


def test_what_is_over_the_limit_of_another_broker_ends_no_link(redis_server, broker):
    server = redis_server()
    with server.client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    big = broker([server], config={"limits": {"payload": "40MiB"}, "spill": {"bytes": "200MiB"}, "log": {"level": "info"},
                                   "slow_subscriber": {"bytes": "200MiB"}})
    small = broker([server], config={"limits": {"payload": "1MiB"}, "log": {"level": "info"}})
    wait_up(big, small)
    pod = Pod(small.port)
    with Raw(big.port, timeout=60) as raw:
        for i, size in enumerate((1, 3 * MEGABYTE, 34 * MEGABYTE, 1)):  # the first two are over what the other accepts
            assert raw.call("PUBLISH", "flask-socketio", emit("r", [i, "x" * size])) == 0
        wait_until(lambda: [data[0] for _, data in pod.received] == [0, 1, 3], "all but one came", 20)
    metrics = small.metrics()
    assert metrics.get("sidrail_broker_messages_lost_total", reason="too_long") == 1
    assert metrics.get("sidrail_broker_messages_lost_total") == 1
    assert metrics.get("sidrail_broker_messages_skipped_total") >= 1
    assert metrics.get("sidrail_broker_links_closed_total") == 0
    assert "longer than this broker reads" in small.log()
