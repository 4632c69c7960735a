"""The quick starts of the contracts, by flags alone, carry real sessions, and end at SIGTERM."""
import subprocess

import pytest
from crowd import Crowd, wishes
from daemons import BUILD, Server, answers, free_port


class ByFlags(Server):
    """A daemon that is started with flags only."""

    def __init__(self, program, folder, *flags):
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [BUILD / program, "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin_port}", *flags]
        super().__init__(program, argv, folder)

    def is_ready(self):
        return answers(self.port) and answers(self.admin_port)


@pytest.mark.smoke
def test_two_pods_behind_both_daemons(servers):
    shards = [word for server in servers.redis_server(2) for word in ("--shard", server.url)]
    broker = servers.start(ByFlags("sidrail-broker", servers.folder, *shards))
    pods = [servers.pod("flask", queue=f"redis://127.0.0.1:{broker.port}/0") for _ in range(2)]
    proxy = ByFlags("sidrail-proxy", servers.folder, "--upstream", ",".join(pod.address for pod in pods), "--threads", 2)
    proxy.stop_seconds = 300
    servers.start(proxy)
    clients = [w for library in ("js", "python") for transport in ("polling", "upgrade", "websocket")
               for w in wishes(library, transport, 3, ["red", "green", "blue"])]
    with Crowd(proxy.url, clients) as crowd:
        assert len({about["pod"] for about in crowd.connect().values()}) == 2
        crowd.echo()
        crowd.say(2)


@pytest.mark.parametrize("program", ["sidrail-proxy", "sidrail-broker"])
@pytest.mark.parametrize("flag", ["--help", "--version", "--print-options", "--print-metrics"])
def test_flags_that_only_print_are_exit_0(program, flag):
    done = subprocess.run([str(BUILD / program), flag], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr
