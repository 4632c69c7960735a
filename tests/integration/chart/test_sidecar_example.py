"""The example of native sidecars is what Kubernetes takes, and serves: four workers of one pod, each session on its own."""
import json
import pathlib
import re
import signal
import subprocess

import pytest
import socketio
import yaml
from websocket import create_connection

from chart_tools import EXAMPLES, PodFolder, environment, find_one, refused_by_pod_security, validate
from daemons import BUILD, PODS, ROOT, Server, figure, free_port, http_get, python_of, wait_until

GIVEN = {"chat-sidecar-keys": {"affinity.keys": "S 00112233445566778899aabbccddeeff\n"}, "chat-redis": {"password": "secret\n"}}


@pytest.fixture(scope="module")
def manifests():
    return list(yaml.safe_load_all((EXAMPLES / "flask-socketio-sidecar.yaml").read_text()))


@pytest.fixture
def spec(manifests):
    return find_one(manifests, "Deployment")["spec"]["template"]["spec"]


def test_kubernetes_and_pod_security_take_the_example(manifests, spec, tmp_path):
    status, out = validate(tmp_path, {"example": manifests}, figure(["1.30", "1.37"], [f"1.{minor}" for minor in range(29, 38)]))
    assert status == 0, out
    assert list(refused_by_pod_security(spec)) == []
    for sidecar in spec["initContainers"]:
        assert sidecar["restartPolicy"] == "Always"
    assert [one["name"] for one in spec["initContainers"]] == ["broker", "proxy"], "the broker ends last"


def test_the_daemons_find_the_configurations_of_the_example_good(manifests, spec, tmp_path):
    for sidecar in spec["initContainers"]:
        command = PodFolder(tmp_path / sidecar["name"], manifests, spec, GIVEN).mount(sidecar).command(sidecar)
        done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class Sidecar(Server):
    def __init__(self, container, pod, folder, changes):
        self.container = container
        self.ports = {port["name"]: free_port() for port in container["ports"]}
        written = [(f"0.0.0.0:{port['containerPort']}", f"127.0.0.1:{self.ports[port['name']]}") for port in container["ports"]]
        super().__init__(container["name"], pod.mount(container).command(container, [*written, *changes]), folder)

    def is_ready(self):
        probe = self.container["startupProbe"]["httpGet"]
        return http_get(f"http://127.0.0.1:{self.ports[probe['port']]}{probe['path']}")[0] == 200


class Gunicorn(Server):
    """The example's command, with flask_pod.py as the application."""

    expected_status = (0, -signal.SIGTERM)

    def __init__(self, container, pod, folder, queue):
        pod.mount(container)
        self.sockets = pathlib.Path(pod.places["/run/sio"])
        config = pod.in_place("/etc/sidrail/gunicorn.conf.py")
        assert container["command"] == ["gunicorn"] and container["args"][:2] == ["--config", "/etc/sidrail/gunicorn.conf.py"]
        super().__init__("gunicorn", [python_of("current"), "-m", "gunicorn", "--config", config, "--graceful-timeout", 1,
                                      "--chdir", PODS, "flask_pod:app"], folder,
                         {**environment(container), "SIO_SOCKETS": self.sockets, "POD_NAME": "chat", "POD_QUEUE": queue})

    def is_ready(self):
        return len(list(self.sockets.glob("w*.sock"))) == int(self.env["WEB_CONCURRENCY"])


def status_of(proxy):
    return json.loads(http_get(f"http://127.0.0.1:{proxy.ports['proxy-admin']}/status.json")[1])


def serve(manifests, spec, start, redis_server, tmp_path, changes=()):
    """The pod: broker, proxy and gunicorn as the example starts them."""
    shards = redis_server(2, password="secret")
    queue = free_port()
    changes = [("127.0.0.1:6379", f"127.0.0.1:{queue}"),
               *((f"redis://redis-{name}.redis:6379", shard.url) for name, shard in zip("ab", shards)), *changes]
    pod = PodFolder(tmp_path / "pod", manifests, spec, GIVEN)
    broker, proxy = (start(Sidecar(one, pod, tmp_path, changes)) for one in spec["initContainers"])
    [app] = spec["containers"]
    gunicorn = start(Gunicorn(app, pod, tmp_path, f"redis://127.0.0.1:{queue}/0"))
    url = f"http://127.0.0.1:{proxy.ports['http']}"
    probe = app["readinessProbe"]["httpGet"]
    assert probe["port"] == 8080
    wait_until(lambda: all(one["state"] == "ready" and not one["suspect"] for one in status_of(proxy)["endpoints"]),
               "the proxy has found all workers")
    wait_until(lambda: http_get(f"{url}/pod")[0] == 200, "a worker serves through the proxy")
    return broker, proxy, gunicorn, url


def test_four_workers_of_one_pod_keep_their_sessions(manifests, spec, start, redis_server, tmp_path):
    broker, proxy, gunicorn, url = serve(manifests, spec, start, redis_server, tmp_path)
    clients, heard = [], []
    for number in range(figure(12, 60)):
        client = socketio.Client(reconnection=False)
        client.on("said", lambda data, number=number: heard.append((number, data["number"])))
        client.connect(url, transports=["polling"] if number % 3 == 0 else None)
        clients.append(client)
    pids = {client.call("whoami")["engine_sid"]: client for client in clients}
    assert len(pids) == len(clients)
    for client in clients:
        client.call("join", {"room": "lobby"})
    clients[0].call("say", {"room": "lobby", "number": 7})
    wait_until(lambda: sorted(heard) == [(number, 7) for number in range(len(clients))], "all workers' clients hear it")
    status = status_of(proxy)
    assert status["upstream_session_unknown"] == 0
    assert sum(one["handshakes"] > 0 for one in status["endpoints"]) >= 3, "sessions are spread over the workers"
    for client in clients:
        client.disconnect()
    assert broker.is_running() and gunicorn.is_running()


def test_the_prestop_hook_of_the_manual_lets_websockets_go_and_serves_polls(manifests, spec, start, redis_server, tmp_path):
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    [block] = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "drain" in block]
    command = yaml.safe_load(block)["lifecycle"]["preStop"]["exec"]["command"]
    quick = ("place_after: 0s\n", "place_after: 0s\n    drain: {delay: 0s, window: 1s}\n")
    _, proxy, gunicorn, url = serve(manifests, spec, start, redis_server, tmp_path, [quick])
    riders = [create_connection(f"ws{url[4:]}/socket.io/?EIO=4&transport=websocket", timeout=30) for _ in range(4)]
    for rider in riders:
        assert rider.recv().startswith("0{")
    poller = socketio.Client(reconnection=False)
    poller.connect(url, transports=["polling"])

    socket = yaml.safe_load((tmp_path / "pod" / "sidecars" / "proxy.yaml").read_text())["admin"]["socket"]
    assert command[:2] == ["sidrail-proxy", "ctl"]
    subprocess.run([BUILD / command[0], "ctl", "--socket", socket, *command[2:]], check=True, timeout=10)
    for rider in riders:
        while (frame := rider.recv_frame()).opcode != 8:
            pass
        assert frame.data[:2] == (1012).to_bytes(2, "big")
    assert poller.call("whoami")["transport"] == "polling"
    assert http_get(f"{url}/socket.io/?EIO=4&transport=polling")[0] == 200
    poller.disconnect()
    assert gunicorn.is_running()
