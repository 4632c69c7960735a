"""What is wrong is said in one clear line: at start with exit status 1 (2 for the command line), and what can mend
itself, a Redis that is away or refuses the password, is said once and tried again, ever more slowly.
"""
import re
import socket
import subprocess
import threading
import time

import pytest
import yaml
from daemons import BUILD, PATIENCE, Redis, answers, free_port, http_get, wait_until

PROXY, BROKER = "sidrail-proxy", "sidrail-broker"


def run(program, *arguments):
    """Runs a daemon that should end by itself: exit status, stderr."""
    done = subprocess.run([str(BUILD / program), *map(str, arguments)], capture_output=True, text=True,
                          timeout=20 * PATIENCE, stdin=subprocess.DEVNULL)
    return done.returncode, done.stderr


def only_line(text):
    lines = text.strip().splitlines()
    assert len(lines) == 1, f"{len(lines)} lines instead of one:\n{text}"
    return lines[0]


def good_config(program, folder):
    admin = {"address": f"127.0.0.1:{free_port()}", "socket": str(folder / "ctl.sock")}
    config = {"listeners": [{"address": f"127.0.0.1:{free_port()}"}], "admin": admin}
    if program == PROXY:
        config["upstreams"] = [{"name": "chat", "discovery": {"static": [f"127.0.0.1:{free_port()}"]}}]
        config["routes"] = [{"host": "*", "path": "/", "upstream": "chat"}]
    return config


def write(folder, config):
    path = folder / "config.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False))
    return path


def refused(program, folder, config):
    """Start and --check must refuse the file alike; returns the one line of the start."""
    path = write(folder, config)
    status, text = run(program, "--config", path, "--check")
    assert status == 1, f"--check: exit status {status}: {text}"
    only_line(text)
    status, text = run(program, "--config", path)
    assert status == 1, f"exit status {status}: {text}"
    return only_line(text)


@pytest.fixture(params=[PROXY, BROKER])
def program(request):
    return request.param


@pytest.fixture
def taken_port():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", free_port())) as server:
        yield server.getsockname()[1]


def test_a_good_file_passes_the_check(program, tmp_path):
    status, text = run(program, "--config", write(tmp_path, good_config(program, tmp_path)), "--check")
    assert status == 0, text


@pytest.mark.parametrize("text, line", [
    ("listeners: [\n  {address: '127.0.0.1:1234'\n", None),
    ("listeners:\n  - address: 'x\n", None),
    ("admin:\n\taddress: 1\n", 2),
    ("\x00\x01", None),
    ("- a\n- list\n", 1),
], ids=["open bracket", "open quote", "tab", "binary", "a list"])
def test_broken_yaml_is_named_with_its_place(program, tmp_path, text, line):
    said = refused(program, tmp_path, text)
    assert re.search(rf"config\.yaml:{line or r'[0-9]+'}:\d+: ", said), said


def test_an_unknown_key_is_named_with_its_nearest_neighbour(program, tmp_path):
    config = good_config(program, tmp_path)
    config["shutdwon"] = {"deadline": "1s"}
    said = refused(program, tmp_path, config)
    assert re.search(r"config\.yaml:\d+:1: ", said) and "shutdwon" in said and "shutdown" in said, said


@pytest.mark.parametrize("change", [
    {"log": {"level": "loud"}}, {"log": "quiet"}, {"shutdown": {"deadline": "tomorrow"}},
    {"limits": {"connections": -1, "clients": -1}}, {"listeners": [{"address": "127.0.0.1:99999"}]},
    {"listeners": [{"address": "nowhere"}]},
], ids=["word", "type", "duration", "range", "port", "address"])
def test_a_wrong_value_is_named_with_its_place(program, tmp_path, change):
    config = {**good_config(program, tmp_path), **change}
    if "limits" in change:
        config["limits"] = {"connections": -1} if program == PROXY else {"clients": -1}
    said = refused(program, tmp_path, config)
    assert re.search(r"config\.yaml:\d+:\d+: ", said), said


def test_a_missing_file_is_named(program, tmp_path):
    path = tmp_path / "absent.yaml"
    for arguments in (["--config", path], ["--config", path, "--check"]):
        status, text = run(program, *arguments)
        assert status == 1
        assert "absent.yaml" in only_line(text)


@pytest.mark.parametrize("arguments", [["--frobnicate"], ["--config"], ["surplus"]])
def test_a_wrong_command_line_is_exit_2(program, arguments):
    status, text = run(program, *arguments)
    assert status == 2, text
    assert text.strip()


def test_a_proxy_without_anything_to_do_is_exit_2():
    assert run(PROXY)[0] == 2


@pytest.mark.parametrize("place", ["listeners", "admin"])
def test_a_port_in_use_is_named_with_its_option(program, tmp_path, taken_port, place):
    config = good_config(program, tmp_path)
    where = config["listeners"][0] if place == "listeners" else config["admin"]
    where["address"] = f"127.0.0.1:{taken_port}"
    config["log"] = {"level": "error"}
    status, text = run(program, "--config", write(tmp_path, config))
    assert status == 1
    said = only_line(text)
    assert place in said and f"127.0.0.1:{taken_port}" in said, said


def test_a_port_in_use_is_named_at_the_quick_start(taken_port):
    address = f"127.0.0.1:{taken_port}"
    spare = f"127.0.0.1:{free_port()}"
    for program, arguments in ((PROXY, ["--upstream", spare]), (BROKER, [])):
        status, text = run(program, "--listen", address, "--admin", spare, *arguments)
        assert status == 1
        assert address in text.strip().splitlines()[-1], text


@pytest.mark.parametrize("content", [None, "", "a tooshort\n", "aa 00112233445566778899aabbccddeeff\n",
                                     "a 00112233445566778899aabbccddeeff\n" * 2, "a 0011223344556677889\u00e9aabbccddeef\n"],
                         ids=["missing", "empty", "short key", "long ID", "same ID twice", "no hex"])
def test_a_bad_key_file_is_named(tmp_path, content):
    keys = tmp_path / "affinity.keys"
    if content is not None:
        keys.write_text(content)
        keys.chmod(0o600)
    config = {**good_config(PROXY, tmp_path), "affinity_keys": str(keys), "log": {"level": "error"}}
    status, text = run(PROXY, "--config", write(tmp_path, config))
    assert status == 1
    assert "affinity.keys" in only_line(text)


@pytest.mark.parametrize("content", [None, "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"],
                         ids=["missing", "nonsense"])
def test_an_unreadable_certificate_is_named(tmp_path, content):
    for name in ("tls.crt", "tls.key"):
        if content:
            (tmp_path / name).write_text(content)
    pair = {"cert": str(tmp_path / "tls.crt"), "key": str(tmp_path / "tls.key")}
    config = good_config(PROXY, tmp_path)
    config["listeners"][0]["tls"] = {"certificates": [pair]}
    config["log"] = {"level": "error"}
    status, text = run(PROXY, "--config", write(tmp_path, config))
    assert status == 1
    assert "tls.crt" in only_line(text)


def test_a_missing_password_file_is_named(tmp_path):
    config = good_config(BROKER, tmp_path)
    config["shards"] = [{"name": "a", "url": "redis://127.0.0.1:1", "password_file": str(tmp_path / "absent")}]
    config["log"] = {"level": "error"}
    status, text = run(BROKER, "--config", write(tmp_path, config))
    assert status == 1
    assert "absent" in only_line(text)


def test_a_shard_that_is_no_redis_url_is_named(tmp_path):
    config = good_config(BROKER, tmp_path)
    config["shards"] = [{"name": "a", "url": "http://127.0.0.1:6379"}]
    assert "shards[0].url" in refused(BROKER, tmp_path, config)


# --- what can mend itself ------------------------------------------------------------------------------------

def lines_about(broker, words):
    return [line for line in broker.log().splitlines() if re.search(words, line)]


def test_an_unreachable_redis_is_said_once_and_tried_ever_more_slowly(servers):
    arrivals = []
    with socket.create_server(("127.0.0.1", free_port())) as server:
        port = server.getsockname()[1]

        def turn_away():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                arrivals.append(time.monotonic())
                connection.close()

        threading.Thread(target=turn_away, daemon=True).start()
        broker = servers.broker([f"redis://127.0.0.1:{port}"], config={"log": {"level": "info"}})
        time.sleep(4)
        server.shutdown(socket.SHUT_RDWR)
    assert broker.is_running()
    assert 2 <= len(arrivals) <= 30, f"{len(arrivals)} tries within 4 s"
    said = lines_about(broker, rf"127\.0\.0\.1:{port}|shard")
    errors = [line for line in said if re.search(r"error|warn", line, re.I)]
    assert 1 <= len(errors) <= 2, f"{len(errors)} lines instead of one:\n{broker.log()}"


def test_what_was_published_while_redis_was_away_arrives_when_it_is_there(servers):
    port = free_port()
    broker = servers.broker([f"redis://127.0.0.1:{port}"], config={"log": {"level": "info"}})
    with broker.client(socket_timeout=20) as client:
        heard = client.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("news")
        time.sleep(0.5)
        client.publish("news", "early")
        assert not answers(port)
        servers.start(Redis("late-redis", servers.folder, port=port))
        deadline = time.monotonic() + 20 * PATIENCE
        message = None
        while message is None and time.monotonic() < deadline:
            message = heard.get_message(timeout=1)
        assert message and message["data"] == b"early", f"got {message}:\n{broker.log()}"
        heard.close()


def test_a_wrong_password_is_said_once_and_tried_again(servers, tmp_path):
    redis_server = servers.redis_server(password="right")
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    shard = {"name": "a", "url": redis_server.url, "password_file": str(secret)}
    broker = servers.broker([shard], config={"log": {"level": "info"}})
    broker.wait_log(r"(?i)WRONGPASS|password|auth")
    time.sleep(2)
    assert broker.is_running()
    errors = lines_about(broker, r"(?i)(WRONGPASS|password|auth).*|.*(WRONGPASS)")
    assert len(errors) <= 2, f"{len(errors)} lines instead of one:\n{broker.log()}"
    with redis_server.client() as client:
        client.config_set("requirepass", "wrong")
    with broker.client(socket_timeout=20) as client:
        heard = client.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("news")
        client.publish("news", "through")
        wait_until(lambda: heard.get_message(timeout=1), "the shard carries a message", 20)
        heard.close()


def test_a_proxy_without_living_endpoints_runs_and_says_so_to_clients(servers):
    proxy = servers.proxy([f"127.0.0.1:{free_port()}"])
    status, body = http_get(f"{proxy.url}/socket.io/?EIO=4&transport=polling")
    assert status in (502, 503), f"{status}: {body}"
    assert http_get(f"{proxy.admin}/livez")[0] == 200
