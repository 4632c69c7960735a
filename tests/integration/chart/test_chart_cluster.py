"""What the chart does with a cluster: the affinity key is kept at upgrades, the Role is what the proxy needs, and probes find what
they ask."""
import base64
import http.server
import json
import re
import threading

import pytest
import yaml

import daemons
from chart_tools import CHART, HELMS, PodFolder, environment, find_one, helm, render
from daemons import Server, free_port, http_get, wait_until
from discovery_tools import Pod, handshake
from k8s_api import Api, endpoint, slice_of
from tls_tools import Authority, server_context


class Cluster:
    """As much of a Kubernetes API as Helm asks when it renders with `--dry-run=server`: versions, resources, Secrets."""

    GROUPS = {"apps/v1": ["Deployment"], "policy/v1": ["PodDisruptionBudget"],
              "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"]}

    def __init__(self):
        self.secrets = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                status, body = outer.answer(self.path.partition("?")[0])
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def resources(version, kinds):
        made = [{"name": re.sub("y$", "ie", kind.lower()) + "s", "singularName": "", "namespaced": True, "kind": kind,
                 "verbs": ["get", "list", "create", "update", "patch", "delete"]} for kind in kinds]
        return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": made}

    def answer(self, path):
        if path == "/version":
            return 200, {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [{"name": name.split("/")[0], "versions": [{"groupVersion": name, "version": "v1"}],
                       "preferredVersion": {"groupVersion": name, "version": "v1"}} for name in self.GROUPS]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path == "/api/v1":
            return self.resources("v1", ["Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"])
        if path.removeprefix("/apis/") in self.GROUPS:
            version = path.removeprefix("/apis/")
            return self.resources(version, self.GROUPS[version])
        found = re.fullmatch("/api/v1/namespaces/apps/secrets/(.+)", path)
        if found and found.group(1) in self.secrets:
            return 200, self.secrets[found.group(1)]
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def kubeconfig(self, folder):
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {"server": f"http://127.0.0.1:{self.server.server_address[1]}"}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}], "users": [{"name": "t", "user": {}}]}))
        return path

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    made.close()


def key_of(manifests):
    secret = find_one(manifests, "Secret")
    [(name, text)] = secret["data"].items()
    return name, base64.b64decode(text).decode()


@pytest.mark.parametrize("version", HELMS)
def test_the_affinity_key_is_made_once_and_kept_at_upgrades(version, cluster, tmp_path):
    def upgrade():
        out = helm("template", "t", CHART, "--namespace", "apps", "--dry-run=server", "--disable-openapi-validation", "--kubeconfig", cluster.kubeconfig(tmp_path),
                   helm=version, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}).stdout
        return [one for one in yaml.safe_load_all(out) if one]
    made = upgrade()
    name, first = key_of(made)
    assert name == "affinity.keys" and re.fullmatch(r"A [0-9a-f]{32}\n", first), first
    assert key_of(upgrade())[1] != first, "the key is not random"
    secret = find_one(made, "Secret")
    secret["metadata"]["annotations"] = {"meta.helm.sh/release-name": "t", "meta.helm.sh/release-namespace": "apps"}
    cluster.secrets[secret["metadata"]["name"]] = secret
    assert key_of(upgrade())[1] == first
    assert key_of(upgrade())[1] == first


def test_a_given_key_is_used_and_none_is_made():
    manifests = render(sets=['proxy.affinityKeys={"existingSecret":"mine","key":"k"}'])
    assert [one for one in manifests if one["kind"] == "Secret"] == []
    spec = find_one(manifests, "Deployment", "-proxy")["spec"]["template"]["spec"]
    [volume] = [one for one in spec["volumes"] if one["name"] == "keys"]
    assert volume["secret"]["secretName"] == "mine" and volume["secret"]["items"] == [{"key": "k", "path": "affinity.keys"}]


class Container(Server):
    """A container of a rendered pod, as a process on this machine: its configuration with other ports and places."""

    def __init__(self, name, folder, manifests, spec, container, changes=()):
        self.container = container
        self.ports = {port["name"]: free_port() for port in container["ports"]}
        written = [(f"0.0.0.0:{port['containerPort']}", f"127.0.0.1:{self.ports[port['name']]}") for port in container["ports"]]
        self.pod = PodFolder(folder / f"{name}-pod", manifests, spec).mount(container)
        self.changes = [*written, *changes]
        super().__init__(name, self.pod.command(container, self.changes), folder, environment(container))

    def probe(self, kind):
        get = self.container[kind]["httpGet"]
        return http_get(f"http://127.0.0.1:{self.ports[get['port']]}{get['path']}")

    def is_ready(self):
        return all(self.probe(kind)[0] == 200 for kind in ("startupProbe", "livenessProbe", "readinessProbe"))


def test_the_pods_of_the_chart_start_and_their_probes_find_what_they_ask(start, pod, tmp_path):
    chat = pod("flask")
    upstreams = [{"name": "chat", "discovery": {"static": [chat.address]}, "place_after": "0s"}]
    manifests = render(sets=[f"proxy.config.upstreams={json.dumps(upstreams)}",
                             'proxy.config.shutdown={"readiness_delay":"1s","window":"1s","deadline":"5s"}'])
    started = {}
    for daemon in ("proxy", "broker"):
        spec = find_one(manifests, "Deployment", f"-{daemon}")["spec"]["template"]["spec"]
        started[daemon] = start(Container(daemon, tmp_path, manifests, spec, spec["containers"][0]))
    for one in started.values():
        assert one.probe("readinessProbe")[1] != http_get(f"http://127.0.0.1:{one.ports['admin']}/nothing")[1]

    # what `helm test` runs
    for daemon, scheme in (("proxy", "http"), ("broker", "redis")):
        test = find_one(manifests, "Pod", f"-{daemon}-probe")["spec"]["containers"][0]
        words = [daemons.BUILD / test["command"][0], *test["command"][1:]]
        assert words[-1].startswith(f"{scheme}://t-sidrail-{daemon}.apps:")
        words[-1] = f"{scheme}://127.0.0.1:{started[daemon].ports['listener-0']}"
        probe = start(Server(f"{daemon}-probe", words, tmp_path), wait=False)
        assert probe.wait_exit() == 0, probe.log()

    # told to end, the proxy is unready at once and lives on for readiness_delay
    edge = started["proxy"]
    edge.expect_death()
    edge.signal(15)
    wait_until(lambda: edge.probe("readinessProbe")[0] == 503, "the proxy is unready")
    assert edge.probe("livenessProbe")[0] == 200
    assert edge.wait_exit() == 0


def test_the_role_allows_what_the_proxy_asks_and_the_mounted_token_and_authority_serve(start, tmp_path):
    ca = Authority(tmp_path)
    pods = Pod("u-1", 0, "127.0.4.1")
    api = Api(free_port(), tls=server_context(ca.issue("api", ["IP:127.0.0.1"])), token="token-of-the-pod")
    api.put(slice_of("chat-1", [endpoint("u-1", "127.0.4.1")], [("http", pods.port)]))
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
    chosen = {"namespace": "prod", "service": "chat", "ports": ["http"], "api_server": api.url, "token_file": f"{mounted}/token",
              "ca_file": f"{mounted}/ca.crt", "watch_time": "1s", "relist": "2s"}
    upstreams = [{"name": "chat", "discovery": {"kubernetes": chosen}, "place_after": "0s"}]
    manifests = render(sets=[f"proxy.config.upstreams={json.dumps(upstreams)}",
                             'proxy.config.shutdown={"readiness_delay":"0s","window":"0s","deadline":"5s"}'])
    spec = find_one(manifests, "Deployment", "-proxy")["spec"]["template"]["spec"]
    proxy = Container("proxy", tmp_path, manifests, spec, spec["containers"][0])
    (proxy.pod.places[mounted] / "token").write_text("token-of-the-pod")
    (proxy.pod.places[mounted] / "ca.crt").write_text(ca.crt.read_text())
    start(proxy)
    handshake(proxy.ports["listener-0"])
    wait_until(lambda: len(api.watches()) >= 2 and len(api.lists()) >= 2, "it has watched and listed more than once")

    role = find_one(manifests, "Role")
    [rule] = role["rules"]
    for _, path, query in list(api.requests):
        verb = "watch" if "watch" in query else "list"
        assert path == f"/apis/{rule['apiGroups'][0]}/v1/namespaces/{role['metadata']['namespace']}/{rule['resources'][0]}"
        assert verb in rule["verbs"]
    assert {"watch" if "watch" in query else "list" for _, _, query in api.requests} == set(rule["verbs"])
    api.close()
    pods.close()


def renew(folder, files):
    """Changes a mounted ConfigMap as the kubelet does: another folder, and one link renamed over."""
    first = not (folder / "..data").is_symlink()
    (folder / "..2").mkdir()
    for name, text in files.items():
        (folder / "..2" / name).write_text(text)
        if first:
            (folder / name).unlink()
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..next").symlink_to("..2")
    (folder / "..next").rename(folder / "..data")


def test_an_upgrade_reaches_the_proxy_while_it_runs(start, pod, tmp_path):
    chat = pod("flask")
    upstreams = [{"name": "chat", "discovery": {"static": [chat.address]}, "place_after": "0s"}]
    values = [f"proxy.config.upstreams={json.dumps(upstreams)}",
              'proxy.config.shutdown={"readiness_delay":"0s","window":"0s","deadline":"5s"}']
    before = render(sets=values)
    after = render(sets=[*values, 'proxy.config.routes=[{"path":"/pod","upstream":"chat"}]'])
    spec, same = (find_one(one, "Deployment", "-proxy")["spec"]["template"] for one in (before, after))
    assert spec == same, "the upgrade would replace the pods"
    proxy = start(Container("proxy", tmp_path, before, spec["spec"], spec["spec"]["containers"][0]))
    url = f"http://127.0.0.1:{proxy.ports['listener-0']}"
    assert http_get(f"{url}/emit")[0] == 200

    folder = proxy.pod.volumes["config"]
    text = find_one(after, "ConfigMap", "-proxy")["data"]["proxy.yaml"]
    renew(folder, {"proxy.yaml": proxy.pod.in_place(text, proxy.changes)})
    wait_until(lambda: http_get(f"{url}/emit")[0] == 404 and http_get(f"{url}/pod")[0] == 200, "the new routes are in use")
