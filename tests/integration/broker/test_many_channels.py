"""PUBSUB CHANNELS and NUMSUB over two brokers with many channels of their own."""
from broker_tools import wait_up
from daemons import wait_until
from resp_client import Raw, command

CHANNELS = 20000


def test_twenty_thousand_channels_are_counted_at_another_broker(redis_server, broker):
    server = redis_server()
    brokers = [broker([server], config={"log": {"level": "info"}}) for _ in range(2)]
    wait_up(*brokers)
    names = [f"user:{i}" for i in range(CHANNELS)]
    with Raw(brokers[0].port) as subscriber, Raw(brokers[1].port) as asker:
        for first in range(0, CHANNELS, 1000):
            subscriber.send(command("SUBSCRIBE", *names[first:first + 1000]))
            for _ in range(1000):
                assert subscriber.read()[0] == b"subscribe"
        wait_until(lambda: len(asker.call("PUBSUB", "CHANNELS")) == CHANNELS, "all are known", 10)
        counts = asker.call("PUBSUB", "NUMSUB", *names[::100])
        assert counts[1::2] == [1] * (CHANNELS // 100)
        subscriber.send(command("UNSUBSCRIBE", *names[:5000]))
        for _ in range(5000):
            subscriber.read()
        wait_until(lambda: len(asker.call("PUBSUB", "CHANNELS", "user:*")) == CHANNELS - 5000, "what ended is known", 10)
        third = broker([server], config={"log": {"level": "info"}})
        with Raw(third.port) as newcomer:
            wait_until(lambda: len(newcomer.call("PUBSUB", "CHANNELS")) == CHANNELS - 5000, "a new broker knows them", 10)
