"""Files that are written slowly, one after the other, or swapped behind links, while both daemons follow them.

    half of a file ──▶ nothing happens, whatever else goes on in its directory
    all of it      ──▶ in use within a second
"""
import os
import re
import socket
import ssl
import time

import pytest
import yaml
from daemons import PATIENCE, Broker, Proxy, free_port, merged, wait_until
from tls_tools import Authority, client_context

KINDS = [Proxy, Broker]


def daemon_of(kind, servers, folder, config=None, path=None):
    """A daemon that reads its configuration from `path`, if that is given."""
    made = Proxy("proxy", folder, ["127.0.0.1:9"], config=config) if kind is Proxy else \
        Broker("broker", folder, config=config)
    if path:
        path.write_text(made.config_path.read_text())
        made.argv[made.argv.index("--config") + 1] = str(path)
    return servers.start(made)


def reloads(daemon):
    """(applied, refused) so far."""
    by = daemon.metrics().by(f"{daemon.program.replace('-', '_')}_reloads_total", "result")
    return by.get("applied", by.get("good")), by.get("refused", by.get("bad"))


def within_a_second(condition, what):
    """Waits, and lets it take a second; what watches nothing has 5 s from one look to the next."""
    begin = time.monotonic()
    wait_until(condition, what)
    assert time.monotonic() - begin < 1.0 * PATIENCE + 0.5, f"{what}: after {time.monotonic() - begin:.1f} s"


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_configuration_is_not_applied(kind, servers, tmp_path):
    daemon = daemon_of(kind, servers, tmp_path)
    config = merged(daemon.config, {"log": {"level": "info"}, "shutdown": {"deadline": "7s"}})
    text = yaml.safe_dump(config, sort_keys=False)
    lines = text.splitlines(keepends=True)
    with open(daemon.config_path, "w") as file:
        for begin in range(0, len(lines), 6):
            file.write("".join(lines[begin:begin + 6]))
            file.flush()
            (tmp_path / "neighbour").write_text(str(begin))  # makes who watches the directory look
            time.sleep(0.12)  # longer than a writer's pause that is waited for
            assert reloads(daemon) == (0, 0)
    within_a_second(lambda: reloads(daemon) == (1, 0), "the whole configuration is in use")


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_that_is_swapped_behind_links_is_in_use_at_once(kind, servers, tmp_path):
    mount = tmp_path / "mount"
    (mount / "..1").mkdir(parents=True)
    (mount / "..data").symlink_to("..1")
    daemon = daemon_of(kind, servers, tmp_path, path=mount / "..1" / "config.yaml")
    servers.started.remove(daemon)
    daemon.stop()
    (mount / "config.yaml").symlink_to("..data/config.yaml")
    daemon.argv[daemon.argv.index("--config") + 1] = str(mount / "config.yaml")
    servers.start(daemon)
    (mount / "..2").mkdir()
    (mount / "..2" / "config.yaml").write_text(yaml.safe_dump(merged(daemon.config, {"log": {"level": "info"}})))
    (mount / "..data_tmp").symlink_to("..2")
    os.rename(mount / "..data_tmp", mount / "..data")
    within_a_second(lambda: reloads(daemon) == (1, 0), "the swapped configuration is in use")


def tls_config(kind, folder, port):
    files = {"cert": str(folder / "it.crt"), "key": str(folder / "it.key")}
    return {"listeners": [{"address": f"127.0.0.1:{port}",
                           "tls": {"certificates": [files]} if kind is Proxy else files}]}


def serial_of(port, authority):
    context = client_context(authority.crt)
    with socket.create_connection(("127.0.0.1", port), 5) as sock, \
            context.wrap_socket(sock, server_hostname="it.test") as secure:
        return secure.getpeercert()["serialNumber"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_waits_for_its_key(kind, servers, tmp_path):
    authority = Authority(tmp_path)
    authority.issue("it", ["DNS:it.test"])
    port = free_port()
    daemon = daemon_of(kind, servers, tmp_path, tls_config(kind, tmp_path, port))
    before = serial_of(port, authority)
    new = authority.issue("new", ["DNS:it.test"])
    certificate, key = (path.read_text() for path in new)

    with open(tmp_path / "it.crt", "w") as file:  # in pieces
        for begin in range(0, len(certificate), 200):
            file.write(certificate[begin:begin + 200])
            file.flush()
            (tmp_path / "neighbour").write_text("")
            time.sleep(0.1)
            assert reloads(daemon) == (0, 0)
    wait_until(lambda: reloads(daemon) == (0, 1), "the certificate does not fit its key")
    assert serial_of(port, authority) == before
    for moment in range(3):  # nobody is asked twice
        (tmp_path / "neighbour").write_text(str(moment))
        time.sleep(0.1)
    with open(tmp_path / "it.key", "w") as file:
        for begin in range(0, len(key), 100):
            file.write(key[begin:begin + 100])
            file.flush()
            time.sleep(0.1)
    within_a_second(lambda: serial_of(port, authority) != before, "the new certificate is shown")
    assert reloads(daemon) == (1, 1)
    assert len(re.findall("does not belong to certificate", daemon.log())) == 1
