"""Publishers with pools of connections, most of them idle: nobody is starved, and an idle one costs little."""
import resource
import threading

import daemons
import redis
from daemons import figure, wait_until
from resp_client import Error, Pod, Raw, emit

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
