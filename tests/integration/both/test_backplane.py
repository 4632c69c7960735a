"""What one pod emits reaches the clients of all pods: in order, complete, once.

    {python-socketio 5.7 (pickle), current (JSON)} × {embedded hub, 1, 2, 4 Redis}, three pods each; clients connect
    straight to their pods, so that the test knows who is where.

5.7 delivers nothing by itself and waits for its own message to come back; the current one delivers to its own
clients first and drops its echo.
"""
import collections
import concurrent.futures

import daemons
import pytest
from backplane_pods import BackplanePod, connected_crowd
from crowd import wish
from daemons import figure, wait_until

ROOMS = [f"room {i}" for i in range(8)]
LINES = figure(25, 500)
VERSIONS = {"sio57": "5.7, pickle", "current": "current, JSON"}


@pytest.fixture(scope="module", params=[0, 1, 2, 4], ids=["hub", "1 shard", "2 shards", "4 shards"])
def backplane(request, module_servers):
    """The broker, and the Redis servers under it."""
    redis_servers = module_servers.redis_server(request.param) if request.param else []
    broker = module_servers.broker(redis_servers)
    yield broker, redis_servers
    for server in (broker, *redis_servers):
        server.stop()


@pytest.fixture(scope="module", params=VERSIONS, ids=VERSIONS.values())
def pods(request, backplane, module_servers):
    made = [BackplanePod(module_servers.name("pod"), module_servers.folder, request.param, backplane[0])
            for _ in range(3)]
    for pod in made:
        module_servers.start(pod, wait=False)
    for pod in made:
        pod.wait_ready()
        pod.version = request.param
    yield made
    daemons.stop_together(made)


@pytest.fixture
def crowd(pods):
    """Four clients a pod, each in three of the eight rooms; one in four polls."""
    clients = [wish(f"{pod.name}-{i}", "polling" if i == 3 else "websocket",
                    [ROOMS[(3 * i + p + k) % 8] for k in (0, 1, 4)], url=pod.url)
               for p, pod in enumerate(pods) for i in range(4)]
    with connected_crowd(pods, clients) as crowd:
        yield crowd


def all_names(crowd):
    return [client["name"] for client in crowd.clients]


def everybody_emits(pods, crowd):
    """Each pod emits LINES lines to each room, all pods at once; returns what the clients got."""
    with concurrent.futures.ThreadPoolExecutor(len(pods)) as pool:
        list(pool.map(lambda pod: pod.do("each", rooms=ROOMS, count=LINES), pods))
    for pod in pods:
        for room in ROOMS:
            for number in range(LINES):
                crowd.expect(room, f"{pod.name}:{number}")
    return crowd.settle()


@pytest.mark.smoke
def test_rooms_keep_order_and_lose_nothing_while_all_pods_emit(pods, crowd):
    report = everybody_emits(pods, crowd)
    orders = collections.defaultdict(set)
    for client in crowd.clients:
        received = report[client["name"]]["received"]
        for room in client["rooms"]:
            seen = [number for r, number in received if r == room]
            orders[room].add(tuple(seen))
            for pod in pods:
                got = [number for number in seen if number.startswith(f"{pod.name}:")]
                assert got == [f"{pod.name}:{n}" for n in range(LINES)], f"{client['name']}, {room}: out of order"
    if pods[0].version == "sio57":  # it delivers only what came back, so a room has one order for everybody
        for room, seen in orders.items():
            assert len(seen) == 1, f"{room} was seen in {len(seen)} orders"


def test_a_broadcast_reaches_every_client(pods, crowd):
    for pod in pods:
        pod.do("emit", rooms=None, count=LINES)
        for number in range(LINES):
            crowd.expect(None, f"{pod.name}:{number}", all_names(crowd))
    crowd.settle()


def test_a_client_in_two_rooms_of_a_list_gets_the_message_once(pods, crowd):
    pair = [ROOMS[0], ROOMS[1]]
    assert set(crowd.members[pair[0]]) & set(crowd.members[pair[1]])
    readers = sorted(set(crowd.members[pair[0]]) | set(crowd.members[pair[1]]))
    for pod in pods:
        pod.do("emit", rooms=pair, count=LINES)
        for number in range(LINES):
            crowd.expect(pair, f"{pod.name}:{number}", readers)
    crowd.settle()


@pytest.mark.parametrize("size", [0, 300, figure(100_000, 900_000)])
def test_rooms_of_any_name_and_messages_of_any_size_arrive(pods, size):
    rooms = ["zürich", "日本 🚃", 42, 'a "quoted" \\ room', "x" * 300, "room"]
    clients = [wish(f"{pod.name}-{library}", "websocket", rooms, library, url=pod.url)
               for pod in pods for library in ("js", "python")]
    with connected_crowd(pods, clients) as crowd:
        for pod in pods:
            for room in rooms:
                pod.do("emit", rooms=room, count=2, bytes=size)
                for number in range(2):
                    crowd.expect(room, f"{pod.name}:{number}")
        crowd.settle()


def test_skipped_clients_are_skipped_on_every_pod(pods, crowd):
    members = crowd.members[ROOMS[2]]
    assert len(members) > 2
    for pod in pods:
        pod.do("emit", rooms=ROOMS[2], first=0, skip_sid=crowd.sid_of[members[0]])
        crowd.expect(ROOMS[2], f"{pod.name}:0", members[1:])
        pod.do("emit", rooms=ROOMS[2], first=1, skip_sid=[crowd.sid_of[name] for name in members[:2]])
        crowd.expect(ROOMS[2], f"{pod.name}:1", members[2:])
    crowd.settle()


def test_an_acknowledgement_comes_back_to_the_pod_that_asked(pods, crowd):
    for pod in pods:
        for name, sid in crowd.sid_of.items():
            answer = pod.do("ask", sid=sid, data={"n": 1, "text": "héllo"})
            assert answer == [name, {"n": 1, "text": "héllo"}], f"{pod.name} asked {name}: {answer}"


def test_a_message_to_one_client_reaches_it_alone(pods, crowd):
    for pod in pods:
        for name, sid in crowd.sid_of.items():
            pod.do("emit", rooms=sid, first=7)
            crowd.expect(sid, f"{pod.name}:7", [name])
    crowd.settle()


def test_a_closed_room_is_empty_on_every_pod(pods, crowd):
    pods[0].do("close_room", room=ROOMS[3])
    tries = iter(range(100, 1000))

    def is_empty():
        number = next(tries)
        for pod in pods:
            pod.do("emit", rooms=[ROOMS[3]], first=number)
            pod.do("emit", rooms=ROOMS[4], first=number)
        crowd.wait_heard(ROOMS[4], [f"{pod.name}:{number}" for pod in pods])
        return not any(room == [ROOMS[3]] and line.endswith(f":{number}")
                       for client in crowd.report().values() for room, line in client["received"])

    wait_until(is_empty, "a message to the closed room reaches nobody")


def test_a_remote_client_can_be_disconnected(pods, crowd):
    victim = crowd.clients[-1]["name"]  # on the last pod
    pods[0].do("disconnect", sid=crowd.sid_of[victim])
    wait_until(lambda: not crowd.report()[victim]["connected"], f"{victim} is disconnected")
    assert sum(client["connected"] for client in crowd.report().values()) == len(crowd.clients) - 1


def test_a_remote_client_can_be_put_into_a_room(pods, crowd):
    if pods[0].version == "sio57":
        pytest.skip("this version moves only its own clients")
    name = next(client["name"] for client in crowd.clients
                if ROOMS[0] not in client["rooms"] and not client["name"].startswith(f"{pods[0].name}-"))
    pods[0].do("enter", sid=crowd.sid_of[name], room=ROOMS[0])
    tries = iter(range(200, 1000))

    def hears():
        pods[1].do("emit", rooms=ROOMS[0], first=next(tries))
        return any(room == ROOMS[0] for room, _ in crowd.report()[name]["received"])

    wait_until(hears, f"{name} hears its new room")


def test_every_redis_carries_a_share(pods, crowd, backplane):
    redis_servers = backplane[1]
    if not redis_servers:
        pytest.skip("the hub has no Redis")

    def publishes(server):
        return server.info("commandstats").get("cmdstat_publish", {}).get("calls", 0)

    before = [publishes(server) for server in redis_servers]
    rooms = [f"spread {i}" for i in range(64)]
    pods[0].do("each", rooms=rooms, count=2)

    def carried():
        return [publishes(server) - was for server, was in zip(redis_servers, before)]

    wait_until(lambda: sum(carried()) >= 128, "all messages went through Redis")
    for server, share in zip(redis_servers, carried()):
        assert share >= 128 / len(redis_servers) / 4, f"{server.name} carried {share} of 128"
