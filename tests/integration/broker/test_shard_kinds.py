"""Redis as managed offers have it: without ROLE, without INFO; passwords with characters that a URL encodes; databases in URLs."""
import urllib.parse

import pytest
from broker_tools import wait_up
from daemons import wait_until
from resp_client import Pod, Raw, emit

LEAST = ("+subscribe", "+unsubscribe", "+publish", "+ping", "+auth")
PASSWORD = "p@ss/w:rd%?#"


def carries(brokers):
    wait_up(*brokers)
    pod = Pod(brokers[-1].port)
    with Raw(brokers[0].port) as raw:
        raw.call("PUBLISH", "flask-socketio", emit("r", 1))
    wait_until(lambda: pod.received == [("r", 1)], "it came", 5)


@pytest.mark.parametrize("allowed, warns", [(("+role",), False), (("+info",), False), ((), True)])
def test_a_shard_is_asked_what_it_is_as_it_may_be_asked(redis_server, broker, allowed, warns):
    server = redis_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "me@home", "on", f">{PASSWORD}", "resetchannels", "&sidrail1:*", "-@all",
                               *LEAST, *allowed)
    secret = urllib.parse.quote(PASSWORD, safe="")
    url = f"redis://me%40home:{secret}@127.0.0.1:{server.port}/3"
    brokers = [broker([url]) for _ in range(2)]
    carries(brokers)
    for b in brokers:
        assert b.log().count("trusted to be a master") == warns
        assert PASSWORD not in b.log() and secret not in b.log()


def test_a_renamed_role_is_no_obstacle_and_a_demotion_is_noticed(redis_server, broker):
    server, master = redis_server(args=("--rename-command", "ROLE", "")), redis_server()
    b = broker([server])
    carries([b])
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
        wait_until(lambda: "link_not_master" in b.log(), "it is left", 5)
        client.execute_command("REPLICAOF", "NO", "ONE")
    wait_up(b)
