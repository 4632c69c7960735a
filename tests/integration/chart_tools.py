"""Renders the chart, and makes what a kubelet would make of a pod that it says: folders for its volumes.

    values ─▶ helm template ─▶ manifests ─┬▶ schemas of Kubernetes (chart_validate.py, in an environment of its own)
                                          ├▶ the rules of Pod Security "restricted"
                                          └▶ PodFolder: config and volumes as files ─▶ sidrail-DAEMON --check, or started
"""
import base64
import pathlib
import subprocess

import yaml

from daemons import BUILD, ENVIRONMENTS, ROOT

CHART = ROOT / "helm" / "sidrail"
EXAMPLES = ROOT / "helm" / "examples"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
HELMS = ("helm4", "helm3")


def helm(*words, helm="helm4", env=None, check=True):
    """Runs Helm; the finished process, whose output is text."""
    binary = ENVIRONMENTS / helm / "bin" / "helm"
    assert binary.exists(), f"{binary} is not there: ./run test makes it"
    done = subprocess.run([binary, *map(str, words)], capture_output=True, text=True, env=env, check=False)
    if check:
        assert done.returncode == 0, f"helm {' '.join(map(str, words))}:\n{done.stdout}\n{done.stderr}"
    return done


def arguments(values=(), sets=()):
    words = []
    for path in values if isinstance(values, (list, tuple)) else [values]:
        words += ["-f", path]
    for one in sets:
        words += ["--set-json", one]
    return words


def render(values=(), sets=(), **options):
    """The manifests, tests' pods included."""
    text = helm("template", "t", CHART, "--namespace", "apps", *arguments(values, sets), **options).stdout
    return [one for one in yaml.safe_load_all(text) if one]


def refusal(values=(), sets=(), **options):
    """What Helm says against these values."""
    done = helm("template", "t", CHART, *arguments(values, sets), check=False, **options)
    assert done.returncode != 0, f"Helm takes {sets}"
    return done.stderr


def find(manifests, kind, ending=""):
    """All of that kind whose name ends so."""
    return [one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]


def find_one(manifests, kind, ending=""):
    [one] = find(manifests, kind, ending)
    return one


def pods(manifests):
    """(name, spec) of every pod, tests' ones included."""
    for one in manifests:
        if one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        elif one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def refused_by_pod_security(spec):
    """What Pod Security "restricted" refuses, and what this chart promises beyond it."""
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}:
            yield f"volume {volume['name']}: {kinds}"
    for one in containers(spec):
        own = one.get("securityContext", {})
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")) or own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield f"{one['name']} may run as root"
        if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") != "RuntimeDefault":
            yield f"{one['name']}: seccomp"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{one['name']}: privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
            yield f"{one['name']}: capabilities"
        if not own.get("readOnlyRootFilesystem"):
            yield f"{one['name']} may write into its root"
        if any("hostPort" in port for port in one.get("ports", [])):
            yield f"{one['name']}: hostPort"
        if not one.get("resources", {}).get("limits", {}).get("memory"):
            yield f"{one['name']} has no limit of memory"
    if spec.get("automountServiceAccountToken") is not False:
        yield "a token is mounted unasked"


def options_table(daemon):
    """Rows of --print-options: path, type, range, default, unit, reload, sentence."""
    out = subprocess.run([BUILD / f"sidrail-{daemon}", "--print-options"], capture_output=True, text=True, check=True)
    return [[cell.strip() for cell in line.split("\t")] for line in out.stdout.splitlines()]


def make_certificate(folder, name="tls", host="chat.example.com"):
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)


class PodFolder:
    """Folders in place of a pod's volumes, and the text of a configuration with their places in it.

    A Secret or ConfigMap that the manifests do not hold is the user's: `given` has its files by name, {NAME: {FILE: TEXT}},
    and {NAME: "tls"} is a certificate with its key, and itself as authority."""

    def __init__(self, folder, manifests, spec, given=None):
        self.folder, self.manifests, self.given = pathlib.Path(folder), manifests, given or {}
        self.places = {}  # mount path: folder
        self.volumes = {}
        for volume in spec.get("volumes", []):
            made = self.folder / volume["name"]
            made.mkdir(parents=True, exist_ok=True)
            self.fill(made, volume)
            self.volumes[volume["name"]] = made

    def data(self, kind, name):
        for one in find(self.manifests, kind):
            if one["metadata"]["name"] == name:
                found = dict(one.get("data", {}))
                return {key: base64.b64decode(text).decode() for key, text in found.items()} if kind == "Secret" else found
        assert name in self.given, f"no {kind} {name} among the manifests, and none given"
        return self.given[name]

    def fill(self, made, volume):
        if "emptyDir" in volume:
            return
        if "projected" in volume:
            for file in ("token", "ca.crt", "namespace"):
                (made / file).write_text("apps")
            return
        source = volume.get("configMap") or volume["secret"]
        files = self.data("ConfigMap" if "configMap" in volume else "Secret", source.get("name") or source.get("secretName"))
        if files == "tls":
            make_certificate(made)
            (made / "ca.crt").write_text((made / "tls.crt").read_text())
            return
        items = source.get("items") or [{"key": key, "path": key} for key in files]
        for item in items:
            (made / item["path"]).write_text(files[item["key"]])
            (made / item["path"]).chmod(0o600)

    def mount(self, container):
        for mount in container.get("volumeMounts", []):
            assert "subPath" not in mount, "a file that is mounted alone does not follow its ConfigMap"
            self.places[mount["mountPath"]] = self.volumes[mount["name"]]
        return self

    def in_place(self, text, changes=()):
        """The text with mount paths replaced by folders, the longest first, and other changes made."""
        for path in sorted(self.places, key=len, reverse=True):
            text = text.replace(path, str(self.places[path]))
        for old, new in changes:
            text = text.replace(old, new)
        return text

    def command(self, container, changes=()):
        """The container's command with the daemon's own binary, its configuration rewritten in place."""
        words = [self.in_place(word) for word in container["command"] + container.get("args", [])]
        for word in words:
            if word.endswith(".yaml"):
                path = pathlib.Path(word)
                path.write_text(self.in_place(path.read_text(), changes))
        return [str(BUILD / words[0]), *words[1:]]


def environment(container, values=None):
    """The container's environment; `values` stands for what comes from elsewhere, by name."""
    found = {}
    for one in container.get("env", []):
        found[one["name"]] = one.get("value") or (values or {}).get(one["name"], "127.0.0.1")
    return found


def validate(folder, manifests_by_name, versions):
    """What the schemas of these Kubernetes versions say against the manifests."""
    python = ENVIRONMENTS / "chart" / "bin" / "python"
    assert python.exists(), f"{python} is not there: ./run test makes it"
    folder = pathlib.Path(folder)
    for name, manifests in manifests_by_name.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(manifests))
    done = subprocess.run([python, pathlib.Path(__file__).parent / "chart_validate.py", ",".join(versions), *sorted(folder.glob("*.yaml"))],
                          capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
