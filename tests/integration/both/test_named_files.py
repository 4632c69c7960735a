"""Files that a configuration names: --check opens them and names option and file; nothing is asked, nothing waits."""
import os
import pty
import subprocess

import pytest
import yaml
from daemons import BUILD, PATIENCE, Broker, Proxy, free_port
from tls_tools import Authority

PROXY, BROKER = "sidrail-proxy", "sidrail-broker"


def proxy_config(**more):
    return {"listeners": [{"address": f"127.0.0.1:{free_port()}"}], "admin": {"address": "", "socket": ""},
            "upstreams": [{"name": "chat", "discovery": {"static": ["127.0.0.1:9"]}}], **more}


def broker_config(**more):
    return {"listeners": [{"address": f"127.0.0.1:{free_port()}"}], "admin": {"address": "", "socket": ""}, **more}


def run(program, folder, config, *words):
    """The daemon at a terminal of its own, as an operator starts it: (exit status, what it said)."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    terminal, other = pty.openpty()
    try:
        done = subprocess.run([BUILD / program, "--config", path, *words], stdin=other, text=True, start_new_session=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10 * PATIENCE,
                              preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0))  # TIOCSCTTY
    finally:
        os.close(terminal)
        os.close(other)
    return done.returncode, done.stdout


def tls(cert, key):
    return {"tls": {"certificates": [{"cert": str(cert), "key": str(key)}]}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of good and bad files by name."""
    folder = tmp_path_factory.mktemp("files")
    authority = Authority(folder)
    cert, key = authority.issue("it", ["DNS:it.test"])
    _, other = authority.issue("other", ["DNS:it.test"])
    key.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", folder / "locked.key"], check=True)
    (folder / "locked.key").chmod(0o600)
    (folder / "garbage").write_text("no PEM\n")
    (folder / "list.json").write_text('["127.0.0.1:9", 7]')
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "garbage").chmod(0o600)
    return {"cert": cert, "key": key, "other": other, "ca": authority.crt, "locked": folder / "locked.key",
            "garbage": folder / "garbage", "fifo": folder / "fifo", "list": folder / "list.json", "none": folder / "none"}


def listeners(extra):
    return [{"address": f"127.0.0.1:{free_port()}", **extra}]


CASES = {
    "proxy certificate": (PROXY, "none", "listeners[0].tls", lambda f: proxy_config(listeners=listeners(tls(f["none"], f["key"])))),
    "proxy key": (PROXY, "garbage", "listeners[0].tls", lambda f: proxy_config(listeners=listeners(tls(f["cert"], f["garbage"])))),
    "proxy other key": (PROXY, "other", "listeners[0].tls", lambda f: proxy_config(listeners=listeners(tls(f["cert"], f["other"])))),
    "proxy locked key": (PROXY, "locked", "is encrypted", lambda f: proxy_config(listeners=listeners(tls(f["cert"], f["locked"])))),
    "proxy fifo": (PROXY, "fifo", "is not a regular file", lambda f: proxy_config(listeners=listeners(tls(f["cert"], f["fifo"])))),
    "proxy affinity": (PROXY, "garbage", "affinity_keys", lambda f: proxy_config(affinity_keys=str(f["garbage"]))),
    "proxy affinity fifo": (PROXY, "fifo", "affinity_keys", lambda f: proxy_config(affinity_keys=str(f["fifo"]))),
    "proxy CA of endpoints": (PROXY, "garbage", "upstreams[0].tls", lambda f: proxy_config(upstreams=[
        {"name": "chat", "discovery": {"static": ["127.0.0.1:9"]}, "tls": {"ca": str(f["garbage"])}}])),
    "proxy endpoint file": (PROXY, "list", "upstreams[0].discovery.file", lambda f: proxy_config(upstreams=[
        {"name": "chat", "discovery": {"file": str(f["list"])}}])),
    "proxy token": (PROXY, "none", "token_file", lambda f: proxy_config(upstreams=[
        {"name": "chat", "discovery": {"kubernetes": {"service": "a", "ports": ["b"], "token_file": str(f["none"])}}}])),
    "broker certificate": (BROKER, "none", "listeners[0].tls", lambda f: broker_config(listeners=listeners(
        {"tls": {"cert": str(f["none"]), "key": str(f["key"])}}))),
    "broker locked key": (BROKER, "locked", "is encrypted", lambda f: broker_config(listeners=listeners(
        {"tls": {"cert": str(f["cert"]), "key": str(f["locked"])}}))),
    "broker password fifo": (BROKER, "fifo", "password_file", lambda f: broker_config(listeners=listeners(
        {"users": [{"name": "default", "password_file": str(f["fifo"])}]}))),
    "broker password of a shard": (BROKER, "none", "shards[0].password_file", lambda f: broker_config(shards=[
        {"url": "redis://127.0.0.1:9", "password_file": str(f["none"])}])),
    "broker CA": (BROKER, "garbage", "shards[0].tls", lambda f: broker_config(shards=[
        {"url": "rediss://127.0.0.1:9", "tls": {"ca": str(f["garbage"])}}])),
}


@pytest.mark.parametrize("name", CASES)
def test_check_names_option_and_file(files, tmp_path, name):
    program, file, words, config = CASES[name]
    status, text = run(program, tmp_path, config(files), "--check")
    assert status == 1, text
    assert len(text.strip().splitlines()) == 1 and str(files[file]) in text and words in text, text


def test_check_names_every_file_that_is_wrong(files, tmp_path):
    config = proxy_config(listeners=listeners(tls(files["none"], files["key"])) + listeners(tls(files["cert"], files["garbage"])),
                          affinity_keys=str(files["none"]))
    status, text = run(PROXY, tmp_path, config, "--check")
    assert status == 1
    assert [line.split(":")[0] for line in text.strip().splitlines()] == ["listeners[0].tls", "listeners[1].tls", "affinity_keys"]


@pytest.mark.parametrize("name", ["proxy locked key", "broker locked key"])
def test_no_passphrase_is_asked_at_start(files, tmp_path, name):
    program, file, words, config = CASES[name]
    status, text = run(program, tmp_path, config(files))
    assert status == 1 and str(files[file]) in text and words in text, text


@pytest.mark.parametrize("kind", [Proxy, Broker])
def test_a_key_that_others_can_read_is_warned_of_once(kind, servers, files, tmp_path):
    warning = "a TLS key can be read by others"
    extra = tls(files["cert"], files["key"]) if kind is Proxy else {"tls": {"cert": str(files["cert"]), "key": str(files["key"])}}
    config = {"listeners": listeners(extra)}
    for mode, count in ((0o600, 0), (0o640, 1), (0o604, 1)):
        files["key"].chmod(mode)
        name = f"it{mode}"
        daemon = servers.start(Proxy(name, tmp_path, ["127.0.0.1:9"], config=config) if kind is Proxy
                               else Broker(name, tmp_path, config=config))
        status, text = run(daemon.program, tmp_path, daemon.config, "--check")
        assert status == 0 and text.count(warning) == count
        daemon.stop()
        assert daemon.log().count(warning) == count
    files["key"].chmod(0o600)
