"""An idle WebSocket costs the proxy next to nothing, and a closed one nothing.

    idle_tunnels clients ──▶ sidrail-proxy (its own memory, PSS, is measured) ──▶ idle_tunnels endpoint

9,000 tunnels are what a process with 20,000 descriptors carries. What the kernel keeps for sockets is not counted.
"""
import subprocess

import pytest
from daemons import ROOT, Server, free_port, sanitizer, wait_until

TUNNELS = 9000
BYTES_PER_TUNNEL = 1024
#: Of the growth, how much may stay after all tunnels are closed: allocators keep some pages.
SHARE_KEPT = 1 / 3


@pytest.fixture(scope="module")
def idle_tunnels(tmp_path_factory):
    """The load program, tests/bench/idle_tunnels.c, built."""
    program = tmp_path_factory.mktemp("bench") / "idle_tunnels"
    source = ROOT / "tests" / "bench" / "idle_tunnels.c"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, "-lcrypto"], check=True)
    return program


class Endpoint(Server):
    """The far ends of the tunnels."""

    expected_status = (-15,)

    def __init__(self, program, folder):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__("endpoint", [program, "endpoint", self.port], folder)


class Clients:
    """The near ends, told what to do by lines."""

    def __init__(self, program, port, count):
        self.child = subprocess.Popen([program, "clients", str(port), str(count)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        self.expect(f"open {count}")

    def expect(self, text):
        line = self.child.stdout.readline().strip()
        assert line == text, f"the clients say '{line}' instead of '{text}'"

    def tell(self, order, answer):
        self.child.stdin.write(f"{order}\n")
        self.child.stdin.flush()
        self.expect(answer)

    def stop(self):
        self.child.kill()
        self.child.communicate()


@pytest.mark.skipif(sanitizer() != "", reason="a sanitizer has memory of its own")
def test_an_idle_tunnel_costs_at_most_a_kilobyte_and_gives_it_back(servers, idle_tunnels, record_property):
    endpoint = servers.start(Endpoint(idle_tunnels, servers.folder), wait=False)
    wait_until(lambda: answers_quietly(endpoint), "the endpoint listens")
    proxy = servers.proxy([endpoint.address], config={"log": {"level": "warn", "access": "off"}})
    before = proxy.pss()
    clients = Clients(idle_tunnels, proxy.port, TUNNELS)
    try:
        opened = proxy.pss()
        assert proxy.metrics().get("sidrail_proxy_tunnels_open") == TUNNELS
        clients.tell("touch", f"touched {TUNNELS}")
        touched = proxy.pss()
        clients.tell("count", f"alive {TUNNELS}")
        clients.tell("close", f"closed {TUNNELS}")
    finally:
        clients.stop()
    wait_until(lambda: proxy.metrics().get("sidrail_proxy_tunnels_open") == 0, "all tunnels are closed")
    per_tunnel = (opened - before) / TUNNELS
    per_touched = (touched - before) / TUNNELS
    record_property("bytes_per_tunnel", round(per_tunnel))
    print(f"{per_tunnel:.0f} bytes a tunnel, {per_touched:.0f} after a message each")
    assert per_tunnel <= BYTES_PER_TUNNEL
    assert per_touched <= BYTES_PER_TUNNEL
    allowed = before + (touched - before) * SHARE_KEPT
    wait_until(lambda: proxy.pss() <= allowed, "the memory is given back", 10)


def answers_quietly(endpoint):
    """Whether it listens, from /proc, so that it sees no connection that is no WebSocket."""
    with open(f"/proc/{endpoint.pid}/net/tcp") as table:
        return any(line.split()[1].endswith(f":{endpoint.port:04X}") and line.split()[3] == "0A" for line in table)
