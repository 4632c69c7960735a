"""socket.io pods with the stock Redis adapter share rooms through sidrail-broker.

The adapter publishes on channels that are no python-socketio messages (MessagePack, a pattern for all rooms, one
channel a room): the broker must carry them as Redis would.
"""
import pytest
from crowd import Crowd, wish
from daemons import figure, wait_until

ROOMS = [f"room {i}" for i in range(6)]


def are_subscribed(broker, pods):
    """True when each pod's pattern is known and every shard pushes what belongs to it."""
    status = broker.status()
    return broker.client().pubsub_numpat() == pods and all(
        0 < shard["partitions_wanted"] == shard["partitions_subscribed"] for shard in status["shards"]
    ) and (not status["shards"] or status["phase"] == "ready" and status["shards_up"] == len(status["shards"]))


@pytest.mark.parametrize("shards", [0, 1, 2], ids=["hub", "1 shard", "2 shards"])
def test_rooms_of_socket_io_pods_reach_all_pods(servers, shards):
    queue = servers.broker(servers.redis_server(shards) if shards else ())
    pods = [servers.pod("node", queue=queue) for _ in range(2)]
    # the adapter subscribes and does not wait for the answer, so that what is said before it is nobody's
    wait_until(lambda: are_subscribed(queue, 2), "both pods have subscribed")
    clients = [wish(f"js-{i}", "websocket", [ROOMS[i % 6], ROOMS[(i + 2) % 6]], url=pods[i // 3 % 2].url)
               for i in range(12)]
    with Crowd(None, clients) as crowd:
        crowd.connect()
        crowd.say(figure(5, 100))
