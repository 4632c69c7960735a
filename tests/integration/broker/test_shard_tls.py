"""Shards behind TLS: real redis-server with --tls-port. Certificates and names are verified, what is wrong has one line,
and failures over TLS lose nothing."""
import re
import shutil
import subprocess
import time

import pytest
from broker_load import Load
from broker_tools import shard_states, wait_up
from daemons import BUILD, Daemon, free_port, wait_until
from resp_client import Pod, Raw, emit
from tls_tools import Authority, TlsRedis

NAMES = ["DNS:redis.test", "IP:127.0.0.1"]


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def files(ca):
    return ca.issue("redis", NAMES)


@pytest.fixture
def tls_redis(servers, ca):
    def make(files, **options):
        return servers.start(TlsRedis(servers.name("tls-redis"), servers.folder, files, ca.crt, **options))
    return make


def entry(server, ca, name="a", **tls):
    return {"name": name, "url": server.url, "tls": {"ca": str(ca.crt), **tls}}


def send_and_receive(broker, payload="it"):
    pod = Pod(broker.port)
    with Raw(broker.port) as raw:
        raw.call("PUBLISH", "flask-socketio", emit("r", payload))
    wait_until(lambda: pod.received == [("r", payload)], "it comes back from the shard")
    pod.close()


def test_messages_of_every_size_pass_through_shards_with_tls(tls_redis, files, ca, broker):
    servers = [tls_redis(files) for _ in range(2)]
    b = broker([entry(server, ca, name) for server, name in zip(servers, "ab")])
    wait_up(b)
    pod = Pod(b.port)
    sizes = [1, 100, 16_000, 16_384, 16_385, 70_000, 300_000, 3_000_000, 5]
    with Raw(b.port) as raw:
        for size in sizes:
            assert raw.call("PUBLISH", "flask-socketio", emit("one room", "x" * size)) == 1
    wait_until(lambda: len(pod.received) == len(sizes), "all are there")
    assert [len(data) for _, data in pod.received] == sizes
    pod.close()


def test_a_failover_and_resets_over_tls_lose_nothing(tls_redis, files, ca, broker, relays):
    servers = [tls_redis(files) for _ in range(2)]
    paths = [relays(server) for server in servers]
    shards = [{"name": name, "url": f"rediss://127.0.0.1:{path.port}", "tls": {"ca": str(ca.crt)}}
              for path, name in zip(paths, "ab")]
    brokers = [broker(shards) for _ in range(2)]
    wait_up(*brokers)
    load = Load(brokers)
    time.sleep(0.5)
    for path in paths:
        path.reset()
    time.sleep(1)
    servers[0].kill()
    time.sleep(1.5)
    servers[0].start()
    wait_up(*brokers)
    load.check()


@pytest.mark.parametrize("fault, reason, said", [
    ("name", "link_tls", "certificate of other.test: .*ostname mismatch"),
    ("host", "link_tls", "certificate of 127.0.0.1: IP address mismatch"),
    ("expired", "link_tls", "certificate of 127.0.0.1: certificate has expired"),
    ("authority", "link_tls", "certificate of 127.0.0.1: (unable to get local issuer certificate|self-signed)"),
    ("system", "link_tls", "certificate of 127.0.0.1: (unable to get local issuer certificate|self-signed)"),
    ("client", "link_tls", "certificate required|if it wants a certificate"),
    ("tls", "(broken|peer|link_tls)", "TLS.*the URL must begin with rediss://"),
    ("plain", "link_t(ls|imeout)", "does not speak TLS|does it speak TLS"),
])
def test_what_is_wrong_with_a_shard_has_one_line(fault, reason, said, tls_redis, redis_server, files, ca, broker, tmp_path):
    tls = {"ca": str(ca.crt)}
    options = {}
    if fault == "name":
        tls["server_name"] = "other.test"
    elif fault == "host":
        files = ca.issue("named", ["DNS:redis.test"])
    elif fault == "expired":
        files = ca.issue("expired", NAMES, dates="past")
    elif fault == "authority":
        tls["ca"] = str(Authority(tmp_path, "stranger").crt)
    elif fault == "system":
        tls = None
    elif fault == "client":
        options = {"client_ca": ca.crt, "client_files": ca.issue("pod", ["DNS:pod.test"])}
    server = redis_server() if fault == "plain" else None
    server = server or tls_redis(files, **options)
    scheme = "redis" if fault == "tls" else "rediss"
    shard = {"name": "a", "url": f"{scheme}://127.0.0.1:{server.port}"}
    if fault != "tls" and tls:
        shard["tls"] = tls
    b = broker([shard])
    b.wait_log(f"error shard:a down reason={reason} why=.*({said})")
    wait_until(lambda: b.metrics().get("sidrail_broker_links_closed_total") >= (2 if fault == "plain" else 6), "it is tried again")
    assert len(re.findall("error shard:a down", b.log())) == 1
    assert shard_states(b) == {"a": "down"}

def test_a_name_given_by_server_name_is_the_one_that_is_verified(tls_redis, ca, broker):
    server = tls_redis(ca.issue("named", ["DNS:redis.test", "IP:127.0.0.1"]))
    b = broker([entry(server, ca, server_name="redis.test")])
    wait_up(b)
    send_and_receive(b)


def test_a_shard_that_asks_for_a_certificate_gets_it(tls_redis, files, ca, broker):
    pod = ca.issue("broker", ["DNS:broker.test"])
    server = tls_redis(files, client_ca=ca.crt, client_files=pod)
    b = broker([entry(server, ca, cert=str(pod[0]), key=str(pod[1]))])
    wait_up(b)
    send_and_receive(b)


def test_an_authority_is_exchanged_by_its_file(tls_redis, files, ca, broker, tmp_path):
    trusted = tmp_path / "trusted.crt"
    shutil.copy(Authority(tmp_path, "stranger").crt, trusted)
    server = tls_redis(files)
    b = broker([{"name": "a", "url": server.url, "tls": {"ca": str(trusted)}}])
    b.wait_log("error shard:a down reason=link_tls")
    trusted.write_text("no certificate")
    b.wait_log("not reloaded, the old configuration stays.*shards.0..tls CA .*trusted.crt")
    shutil.copy(ca.crt, tmp_path / "next")
    (tmp_path / "next").rename(trusted)
    wait_up(b)
    send_and_receive(b)


def run(*words, env=None):
    done = subprocess.run([BUILD / "sidrail-broker", *words], capture_output=True, text=True, timeout=60, env=env)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("shard, said", [
    ("{url: 'rediss://x', tls: {ca: /absent.crt}}", "shards[0].tls cannot open CA /absent.crt: No such file or directory"),
    ("{url: 'rediss://x', tls: {cert: /absent.crt}}", "shards[0].tls needs both cert and key, or neither"),
    ("{url: 'redis://x', tls: {}}", "shards[0].tls needs a URL that begins with rediss://"),
    ("{url: 'unix:/x', tls: {}}", "shards[0].tls needs a URL that begins with rediss://"),
])
def test_check_names_file_line_and_option(shard, said, tmp_path):
    config = tmp_path / "broker.yaml"
    config.write_text(f"log: {{level: info}}\nshards:\n  - {shard}\n")
    status, output = run("--config", str(config), "--check")
    assert status == 1 and re.match(rf"{config}:3:\d+: {re.escape(said)}", output), output


class FlagsBroker(Daemon):
    """A broker that is started with flags only."""

    program = "sidrail-broker"

    def __init__(self, name, folder, flags, env):
        super().__init__(name, folder, flags, env)
        self.port = free_port()
        self.argv += ["--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}"]


def test_flags_and_the_probe_trust_the_authorities_of_the_system(tls_redis, files, ca, start, tmp_path):
    server = tls_redis(files)
    trusting = {"SSL_CERT_FILE": str(ca.crt)}
    status, output = run("probe", server.url, env=trusting)
    assert status == 0 and output.startswith("ok: published and received"), output
    status, output = run("probe", server.url)
    assert status == 1 and re.search("probe: connect .*certificate", output), output
    daemon = start(FlagsBroker("flags", tmp_path, ["--shard", server.url], env=trusting))
    wait_up(daemon)
    send_and_receive(daemon)
