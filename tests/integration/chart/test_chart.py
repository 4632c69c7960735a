"""The chart renders what Kubernetes takes, what Pod Security "restricted" lets in, and what the daemons can read."""
import copy
import json
import re
import subprocess

import pytest
import yaml

from daemons import BUILD, ROOT, figure
from chart_tools import (CHART, HELMS, VALUES, PodFolder, environment, find, find_one, helm, options_table, pods, refusal,
                         refused_by_pod_security, render, validate)

#: What users bring: Secrets and ConfigMaps that the values files name.
GIVEN = {
    "chat-affinity": {"keys": "B 00112233445566778899aabbccddeeff\n"},
    "edge-keys": {"affinity.keys": "E 00112233445566778899aabbccddeeff\n"},
    "redis-passwords": {name: "secret\n" for name in "abcdefg"},
    "pod-passwords": {"pods": "one\ntwo\n", "celery": "three\n"},
    "cluster-keys": {"cluster.keys": "a 00112233445566778899aabbccddeeff\n"},
    "chat-tls": "tls", "old-name-tls": "tls", "our-ca": "tls",
    "tickets": {"tickets.keys": "00" * 80 + "\n"},
    "endpoints": {"files.json": '["10.0.0.9:80"]'},
}
named = pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path.stem if path else "defaults")


@pytest.fixture(scope="module")
def rendered():
    """Manifests by the name of the values file."""
    return {path.stem if path else "defaults": render(path or ()) for path in [None, *VALUES]}


@pytest.mark.parametrize("version", HELMS)
def test_helm_lint_finds_nothing_in_the_chart(version):
    for path in [None, *VALUES]:
        out = helm("lint", "--strict", CHART, *(["-f", path] if path else []), helm=version).stdout
        assert "0 chart(s) failed" in out and "[WARNING]" not in out, out


def test_helm_3_and_helm_4_render_the_same(rendered):
    def without_random(manifests):
        return [one for one in manifests if one["kind"] != "Secret"]
    for path in [None, *VALUES]:
        name = path.stem if path else "defaults"
        assert without_random(render(path or (), helm="helm3")) == without_random(rendered[name]), name


def test_kubernetes_takes_every_manifest(rendered, tmp_path):
    versions = figure(["1.29", "1.33", "1.37"], [f"1.{minor}" for minor in range(29, 38)])
    status, out = validate(tmp_path, rendered, versions)
    assert status == 0, out
    broken = copy.deepcopy(rendered["defaults"])
    find_one(broken, "Deployment", "-proxy")["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    (tmp_path / "broken").mkdir()
    status, out = validate(tmp_path / "broken", {"broken": broken}, versions)
    assert status == 1 and "redinessProbe" in out, out


@named
def test_every_pod_passes_pod_security_restricted(values, rendered):
    for name, spec in pods(rendered[values.stem if values else "defaults"]):
        assert list(refused_by_pod_security(spec)) == [], name
        loose = copy.deepcopy(spec)
        del loose["containers"][0]["securityContext"]["capabilities"]
        loose["securityContext"]["runAsUser"] = 0
        assert len(list(refused_by_pod_security(loose))) >= 2, "the check sees nothing"


@named
def test_the_daemons_find_every_rendered_configuration_good(values, rendered, tmp_path):
    manifests = rendered[values.stem if values else "defaults"]
    checked = 0
    for one in find(manifests, "Deployment"):
        spec = one["spec"]["template"]["spec"]
        [container] = spec["containers"]
        folder = PodFolder(tmp_path / one["metadata"]["name"], manifests, spec, GIVEN).mount(container)
        command = folder.command(container)
        done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False,
                              env={"PATH": "/usr/bin:/bin", **environment(container, {"OTHER_SITE": "www.example.com"})})
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        checked += 1
    assert checked >= 1


def test_a_configuration_that_the_daemon_refuses_is_seen(tmp_path):
    # the schema knows types and ranges; that a name appears twice only the daemon sees
    twice = [{"name": "a", "discovery": {"static": ["127.0.0.1:1"]}}] * 2
    manifests = render(sets=[f"proxy.config.upstreams={json.dumps(twice)}"])
    spec = find_one(manifests, "Deployment", "-proxy")["spec"]["template"]["spec"]
    command = PodFolder(tmp_path, manifests, spec).mount(spec["containers"][0]).command(spec["containers"][0])
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "proxy.yaml:" in done.stderr, done


def open_objects(schema, path=()):
    """Paths of objects in a schema that would take any key."""
    if isinstance(schema, list):
        for one in schema:
            yield from open_objects(one, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties", True) in (True, {}):
            yield ".".join(path)
        for key, one in schema.items():
            yield from open_objects(one, (*path, key))


def test_the_schema_leaves_no_object_open():
    schema = json.loads((CHART / "values.schema.json").read_text())
    # a parent chart's: other charts' keys stand there
    assert list(open_objects(schema)) == ["properties.global"]


@pytest.mark.parametrize("version", HELMS)
def test_unknown_keys_are_refused_at_every_level(version):
    for one in ("replicas=1", "proxy.replica=1", "proxy.image.repo=\"x\"", "proxy.service.ports=[{\"name\":\"a\",\"port\":1,\"x\":1}]",
                "proxy.config.listener=[]", "proxy.config.limits.conections=1", "broker.config.listeners=[{\"adress\":\"x\"}]",
                "proxy.config.upstreams=[{\"name\":\"a\",\"discovery\":{\"dns\":{\"name\":\"a.\",\"prot\":1}}}]",
                "broker.config.shards=[{\"url\":\"redis://a:1\",\"wieght\":1}]", "proxy.resources.requests.cpu={}",
                "proxy.tolerations=[{\"kee\":\"a\"}]", "broker.env=[{\"name\":\"A\",\"valueFrom\":{\"x\":1}}]"):
        said = refusal(sets=[one], helm=version)
        assert "values don't meet the specifications" in said, said
    for one in ("proxy.config.limits.connections=0", "proxy.config.threads=\"many\"", "broker.config.heartbeat=\"10 s\"",
                "proxy.config.shutdown.window=20", "broker.config.limits.payload=\"16MB\"", "proxy.service.type=\"Outside\""):
        assert "values don't meet the specifications" in refusal(sets=[one], helm=version), one


def standard_value(kind, default, allowed):
    """A value that a row of the option tables takes: its default, or what is in its range."""
    if default not in ("required", "absent", ""):
        return yaml.safe_load(default) if kind not in ("text", "address", "mode", "list of text", "list of networks") else (
            default.strip("[]").split(", ") if kind.startswith("list") and default != "[]" else [] if kind.startswith("list") else
            default.strip('"'))
    if kind == "integer":
        return int(re.search(r"\d+", allowed).group(0))
    return {"text": "a", "address": "0.0.0.0:8080", "list of text": ["a"], "duration": "1s"}[kind]


def every_option(daemon):
    """A configuration that names every option of the table."""
    tree = {}
    for path, kind, allowed, default, *_ in options_table(daemon):
        node = tree
        *way, last = re.split(r"\.", path)
        for step in way:
            node = node.setdefault(step.removesuffix("[]"), [{}] if step.endswith("[]") else {})
            if isinstance(node, list):
                node = node[0]
        if kind == "list of objects":
            node[last] = [{}]
        elif kind == "object":
            node[last] = {}
        else:
            node[last] = standard_value(kind, default, allowed)
    return tree


@pytest.mark.parametrize("version", HELMS)
def test_every_option_of_the_daemons_may_stand_in_the_values(version, tmp_path):
    for daemon in ("proxy", "broker"):
        config = every_option(daemon)
        assert len(str(config)) > 500
        config["admin"]["address"] = "0.0.0.0:9090"
        if daemon == "proxy":
            config["affinity_keys"] = "/secrets/mine/keys"  # empty: the chart's own place
        (tmp_path / "values.yaml").write_text(yaml.safe_dump({daemon: {"config": config}}))
        [held] = find_one(render(tmp_path / "values.yaml", helm=version), "ConfigMap", f"-{daemon}")["data"].values()
        written = yaml.safe_load(held)
        assert written == config, "the configuration is not word for word what the values say"


def test_what_the_values_say_of_the_daemons_is_their_default():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for daemon in ("proxy", "broker"):
        defaults = {row[0]: row[3] for row in options_table(daemon)}
        for name, given in values[daemon]["config"]["shutdown"].items():
            assert given == defaults[f"shutdown.{name}"], f"{daemon}: shutdown.{name}"
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    printed = subprocess.run([BUILD / "sidrail-proxy", "--version"], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["sidrail-proxy", version]


def test_the_proxy_may_list_and_watch_endpoint_slices_and_nothing_else(rendered):
    for name, manifests in rendered.items():
        assert not find(manifests, "ClusterRole") and not find(manifests, "ClusterRoleBinding")
        for role in find(manifests, "Role"):
            assert role["rules"] == [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]
        for binding in find(manifests, "RoleBinding"):
            [subject] = binding["subjects"]
            assert subject["namespace"] == "apps"
            assert binding["roleRef"]["name"] in [role["metadata"]["name"] for role in find(manifests, "Role")
                                                  if role["metadata"]["namespace"] == binding["metadata"]["namespace"]], name
            used = find_one(manifests, "Deployment", "-proxy")["spec"]["template"]["spec"]["serviceAccountName"]
            assert subject["name"] == used

    def namespaces(name):
        return [role["metadata"]["namespace"] for role in find(rendered[name], "Role")]
    assert namespaces("edge-values") == ["canary", "prod"]
    assert namespaces("defaults") == ["apps"]
    assert namespaces("no-api-values") == namespaces("hub-values") == []


def test_a_token_is_mounted_only_where_the_api_is_asked(rendered):
    for name, manifests in rendered.items():
        for pod, spec in pods(manifests):
            has_token = any("projected" in volume for volume in spec.get("volumes", []))
            asks = pod.endswith("-proxy") and name not in ("hub-values", "no-api-values")
            assert has_token == asks, f"{name}: {pod}"


def test_the_kubelet_waits_longer_than_the_daemons_drain(rendered):
    def grace(name, daemon):
        return find_one(rendered[name], "Deployment", f"-{daemon}")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace("defaults", "proxy") == 255 and grace("defaults", "broker") == 25
    assert grace("edge-values", "proxy") == 135
    assert grace("shards-values", "broker") == 60
    said = refusal(sets=["proxy.terminationGracePeriodSeconds=240"])
    assert "before its shutdown.deadline of 240 s" in said, said
    for text, seconds in (("1500ms", 17), ("1h", 3615), ("0", 15), ("3m", 195)):
        manifests = render(sets=[f"proxy.config.shutdown.deadline=\"{text}\""])
        assert find_one(manifests, "Deployment", "-proxy")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_disruption_budgets_stand_where_there_are_replicas(rendered):
    assert [one["metadata"]["name"] for one in find(rendered["defaults"], "PodDisruptionBudget")] == ["t-sidrail-proxy"]
    assert [one["metadata"]["name"] for one in find(rendered["shards-values"], "PodDisruptionBudget")] == [
        "t-sidrail-broker", "t-sidrail-proxy"]
    assert find(rendered["hub-values"], "PodDisruptionBudget") == []


def test_selectors_find_the_pods(rendered):
    for name, manifests in rendered.items():
        for one in find(manifests, "Deployment"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            selectors = [one["spec"]["selector"]["matchLabels"]]
            selectors += [service["spec"]["selector"] for service in find(manifests, "Service")
                          if service["metadata"]["name"].startswith(one["metadata"]["name"])]
            selectors += [budget["spec"]["selector"]["matchLabels"] for budget in find(manifests, "PodDisruptionBudget")
                          if budget["metadata"]["name"] == one["metadata"]["name"]]
            selectors += [spread["labelSelector"]["matchLabels"] for spread in one["spec"]["template"]["spec"]["topologySpreadConstraints"]]
            assert len(selectors) >= 5, name
            for selector in selectors:
                assert selector.items() <= labels.items(), f"{name}: {selector}"
            ports = {port["name"] for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]}
            for service in find(manifests, "Service"):
                if service["metadata"]["name"].startswith(one["metadata"]["name"]):
                    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        for pod in find(manifests, "Pod"):
            for service in find(manifests, "Service"):
                assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items(), "a test's pod is no endpoint"


@pytest.mark.parametrize("one, said", [
    ("broker.replicas=2", "each broker would be a hub of its own"),
    ("proxy.config.admin.address=\"127.0.0.1:9090\"", "the kubelet's probes come to the pod's address"),
    ("proxy.config.admin=null", "the kubelet's probes come to the pod's address"),
    ("proxy.service.ports=[]", "one is needed for each"),
    ("broker.config.listeners=[\"unix:/run/sidrail/a.sock\"]", "one is needed for each"),
    ("proxy.config.listeners=[{\"address\":\"0.0.0.0:1\"},{\"address\":\"0.0.0.0:2\"}]", "one is needed for each"),
])
def test_values_that_cannot_work_are_refused_with_a_reason(one, said):
    assert said in refusal(sets=[one])


def test_only_what_needs_new_pods_replaces_them():
    def annotations(*sets, daemon="proxy"):
        manifests = render(sets=sets)
        return find_one(manifests, "Deployment", f"-{daemon}")["spec"]["template"]["metadata"]["annotations"]
    rolls = "proxy.rollOnConfigChange=true"
    assert annotations(rolls) != annotations(rolls, "proxy.config.limits.connections=5000")
    assert annotations() == annotations("proxy.config.limits.connections=5000")
    assert annotations() != annotations("proxy.config.threads=3")
    before = annotations(daemon="broker")
    assert before == annotations('broker.config.shards=[{"name":"a","url":"redis://a:1"}]', "broker.config.heartbeat=\"20s\"", daemon="broker")
    for row in options_table("broker"):
        if row[5] == "restart" and row[1] != "list of text" and not row[0].startswith("admin."):
            other = {"enum": row[2].split("|")[-1], "integer": 77, "size": "2MiB", "text": "other"}[row[1]]
            assert before != annotations(f"broker.config.{row[0]}={json.dumps(other)}", daemon="broker"), row[0]


def test_the_image_is_built_from_what_run_installs_and_holds_what_the_daemons_load():
    text = (ROOT / "helm" / "Dockerfile").read_text().replace("\\\n", "")
    built, run = (set(found.split()) for found in re.findall(r"--no-install-recommends ([^&\n]+)", text))
    lists = (ROOT / "tests/lib/packages.sh").read_text()
    assert built == set(re.search(r"packages_build=\(([^)]+)\)", lists).group(1).split())
    loaded = set()
    for daemon in ("proxy", "broker"):
        out = subprocess.run(["ldd", BUILD / f"sidrail-{daemon}"], capture_output=True, text=True, check=True).stdout
        loaded |= set(re.findall(r"^\s*(lib\S+) =>", out, re.M))
    found = subprocess.run(["dpkg", "-S", *(f"*/{library}" for library in loaded)], capture_output=True, text=True, check=False).stdout
    owners = {library: {line.split(":")[0] for line in found.splitlines() if line.endswith(f"/{library}")} for library in loaded}
    assert len(owners) > 5
    base = {"libc6", "libgcc-s1"}  # with Debian itself, or with the packages named
    sanitizers = {"libasan8", "libubsan1", "libtsan2", "libstdc++6"}
    missing = {library: packages for library, packages in owners.items() if not packages & (run | base | sanitizers)}
    assert not missing, missing


def test_helm_test_asks_where_a_stranger_is_served(rendered):
    def asked(name, **options):
        manifests = render(**options) if options else rendered[name]
        return [one["spec"]["containers"][0]["command"][2] for one in find(manifests, "Pod")]
    assert asked("defaults") == ["http://t-sidrail-proxy.apps:80", "redis://t-sidrail-broker.apps:6379"]
    assert asked("shards-values") == ["http://t-sidrail-proxy.apps:80"], "the broker asks for a password"
    assert asked("tls-values") == ["redis://t-sidrail-broker.apps:6379"], "the proxy redirects, or speaks TLS"
    given = ['proxy.helmTest.url="https://chat.example.com"', "broker.helmTest.enabled=false"]
    assert asked("", sets=given) == ["https://chat.example.com"]
    second = ['broker.config.listeners=[{"address":"unix:/a"},{"address":"0.0.0.0:1","users":[{"name":"a","password_file":"/b"}]},"0.0.0.0:2"]',
              'broker.service.ports=[{"name":"a","port":11},{"name":"b","port":22}]']
    assert asked("", sets=second)[1] == "redis://t-sidrail-broker.apps:22"
