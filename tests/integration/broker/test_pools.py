"""Publishers with pools of connections, most of them idle: nobody is starved, and an idle one costs little."""
import resource
import selectors
import threading

import daemons
import pytest
import redis
from daemons import figure, wait_until
from resp_client import Error, Pod, Raw, command, emit

PODS = 20
USED = 4


def fill(port, size):
    """A redis-py pool whose connections have all been used."""
    pool = redis.ConnectionPool(port=port, max_connections=size)
    held = [pool.get_connection() for _ in range(size)]
    for connection in held:
        connection.send_command("PING")
        assert connection.read_response() == b"PONG"
        pool.release(connection)
    return pool


def test_hundreds_of_pooled_connections_starve_nobody_and_cost_little(broker):
    size = figure(50, 200)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PODS * size + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    b = broker()
    listeners = [Pod(b.port) for _ in range(PODS)]
    before = b.pss()
    pools = [fill(b.port, size) for _ in range(PODS)]
    assert b.status()["clients_open"] >= PODS * size
    each = (b.pss() - before) / (PODS * size)
    print(f"{each:.0f} bytes of the broker for an idle connection")
    assert daemons.sanitizer() or each < 8 * 1024

    def publish(who):
        client = redis.Redis(connection_pool=pools[who % PODS])
        for number in range(10):
            assert client.publish("flask-socketio", emit("r", [who, number])) == PODS

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(PODS * USED)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for listener in listeners:
        wait_until(lambda it=listener: len(it.received) == PODS * USED * 10, "it has everything")
        for who in range(PODS * USED):
            assert [data[1] for _, data in listener.received if data[0] == who] == list(range(10))
        listener.close()
    for pool in pools:
        pool.disconnect()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def publish_all_at_once(port, count, rounds):
    """Each of `count` connections publishes a long message when its last one is answered, until one of them has been
    answered `rounds` times. Returns how often each was."""
    items = [{"id": i, "name": f"user {i}", "values": [1, 2, 3]} for i in range(200)]
    waits = selectors.DefaultSelector()
    answers = [0] * count
    raws = [Raw(port) for _ in range(count)]
    for who, raw in enumerate(raws):
        payload = emit(f"room {who}", items)
        waits.register(raw.socket, selectors.EVENT_READ, (who, raw, command("PUBLISH", "flask-socketio", payload)))
    for key in list(waits.get_map().values()):
        key.data[1].send(key.data[2])
    while max(answers) < rounds:
        for key, _ in waits.select(20):
            who, raw, request = key.data
            assert raw.read() == 0
            answers[who] += 1
            raw.send(request)
    for raw in raws:
        raw.close()
    return answers


@pytest.mark.alone
def test_hundreds_that_publish_at_once_cost_no_more_each_and_are_served_in_turn(broker, redis_server):
    b = broker(shards=redis_server(1))
    wait_until(lambda: b.status()["shards_up"] == 1, "the shard is up")
    few, many = 4, 400
    publish_all_at_once(b.port, few, 5)
    costs = {}
    for count, rounds in ((few, 300), (many, 20)):
        before = b.cpu_seconds()
        answers = publish_all_at_once(b.port, count, rounds)
        costs[count] = (b.cpu_seconds() - before) / sum(answers)
        print(f"{count} publishers: {costs[count] * 1e6:.0f} us each, answered {min(answers)} to {max(answers)} times")
    assert min(answers) >= max(answers) // 4
    assert costs[many] < 3 * costs[few]


def test_a_pool_that_meets_the_limit_of_clients_is_told_counted_and_goes_on(broker):
    b = broker(config={"limits": {"clients": 20}})
    pool = fill(b.port, 20)
    with Raw(b.port) as more:
        assert more.read() == Error("ERR max number of clients reached")
    assert b.metrics().get("sidrail_broker_clients_closed_total", reason="client_limit") >= 1
    assert redis.Redis(connection_pool=pool).publish("flask-socketio", emit("r", 1)) == 0
    pool.disconnect()
    wait_until(lambda: b.status()["clients_open"] == 0, "there is room again")
    fill(b.port, 20).disconnect()
