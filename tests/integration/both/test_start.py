"""Proves how both daemons start and refuse to start: the command line, every kind of bad configuration with one clear
line each and the exit code of the contract, and running on where that is right."""
import os
import re
import socket
import subprocess

import pytest

import daemons
from daemons import free_port, http_get, wait_until

BOTH = pytest.mark.parametrize("program", ["sidrail-proxy", "sidrail-broker"])


def run(program, *args, env=None):
    """Runs a daemon that is expected to end by itself."""
    return subprocess.run([daemons.BUILD / program, *map(str, args)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})


def minimal(program, port=None, admin=None):
    """The smallest configuration that does not touch anybody else's ports."""
    text = f'listeners: [{{address: "127.0.0.1:{port or free_port()}"}}]\n'
    text += f'admin: {{address: "127.0.0.1:{admin or free_port()}"}}\n'
    if program == "sidrail-proxy":
        text += 'upstreams: [{name: chat, discovery: {static: ["127.0.0.1:9"]}}]\n'
        text += 'routes: [{host: "*", path: "/", upstream: chat}]\n'
    return text


def check_of(program, tmp_path, text):
    """--check of a configuration: exit status and lines on stderr."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    done = run(program, "--config", path, "--check")
    return done.returncode, done.stderr.splitlines(), path


def assert_refused(program, tmp_path, text, line, *words):
    """--check refuses it with a message at that line of the file that holds the words."""
    status, lines, path = check_of(program, tmp_path, text)
    assert status == 1
    place = re.compile(re.escape(str(path)) + rf":{line}:\d+: ")
    placed = [each for each in lines if place.search(each)]
    assert placed, f"no message at line {line}: {lines}"
    for word in words:
        assert any(word in each for each in placed), f"{word!r} is not in {placed}"


# --- the command line ----------------------------------------------------------------------------------------

@BOTH
def test_version_and_help_are_printed_and_end_well(program):
    version = run(program, "--version")
    assert version.returncode == 0
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\S*\n", version.stdout)
    for_help = run(program, "--help")
    assert for_help.returncode == 0
    for word in ("--config", "--listen", "--check", "--print-options"):
        assert word in for_help.stdout


@BOTH
@pytest.mark.parametrize("args", [["--no-such-flag"], ["--config"], ["stray"]], ids=["unknown", "no-value", "stray"])
def test_wrong_usage_ends_with_status_2_and_says_so(program, args):
    done = run(program, *args)
    assert done.returncode == 2
    assert done.stderr.strip()
    assert not done.stdout


def test_the_proxy_does_not_start_without_knowing_what_to_serve():
    assert run("sidrail-proxy").returncode == 2
    assert run("sidrail-proxy", "--listen", f"127.0.0.1:{free_port()}").returncode in (1, 2)


@BOTH
def test_tables_are_printed_with_all_their_columns(program):
    options = run(program, "--print-options")
    assert options.returncode == 0
    rows = [line.split("\t") for line in options.stdout.splitlines()]
    assert {len(row) for row in rows} == {7}
    assert {row[5] for row in rows} <= {"live", "new", "restart", "-"}
    assert any(row[0] == "admin.address" for row in rows)
    metrics = run(program, "--print-metrics")
    rows = [line.split("\t") for line in metrics.stdout.splitlines()]
    assert {len(row) for row in rows} == {4}
    assert all(row[0].startswith("sidrail_") for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


# --- configuration -------------------------------------------------------------------------------------------

@BOTH
def test_a_good_configuration_is_accepted_silently(program, tmp_path):
    status, lines, _ = check_of(program, tmp_path, minimal(program))
    assert status == 0
    assert [line for line in lines if "warn" not in line.lower()] == []


@BOTH
def test_a_missing_file_is_named(program, tmp_path):
    done = run(program, "--config", tmp_path / "none.yaml", "--check")
    assert done.returncode == 1
    assert "none.yaml" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@BOTH
def test_broken_yaml_is_an_error_at_its_line(program, tmp_path):
    assert_refused(program, tmp_path, minimal(program) + 'log: {level: "info\n', r"\d+")


@BOTH
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(program, tmp_path):
    text = minimal(program)
    assert_refused(program, tmp_path, text + "log: {levle: info}\n", text.count("\n") + 1, "levle", "level")


@BOTH
@pytest.mark.parametrize("line,word", [
    ("limits: {head_bytes: lots}", "head_bytes"), ("limits: [1, 2]", "limits"), ("log: {level: loud}", "info"),
    ("shutdown: {deadline: 10}", "deadline"), ("shutdown: {deadline: 10 parsecs}", "deadline"),
], ids=["size", "list", "word", "no-unit", "unit"])
def test_a_value_of_the_wrong_type_is_an_error(program, tmp_path, line, word):
    if program == "sidrail-broker":
        line, word = line.replace("head_bytes", "payload"), word.replace("head_bytes", "payload")
    text = minimal(program)
    assert_refused(program, tmp_path, text + line + "\n", text.count("\n") + 1, word)


@BOTH
def test_all_errors_are_reported_at_once(program, tmp_path):
    text = minimal(program) + "nonsense: 1\nlog: {level: loud}\nshutdown: {deadline: never}\n"
    status, lines, _ = check_of(program, tmp_path, text)
    assert status == 1
    assert len(lines) >= 3


@BOTH
def test_environment_variables_stand_for_values(program, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(minimal(program) + "log: {level: \"${WANTED_LEVEL}\"}\n")
    assert run(program, "--config", path, "--check", env={"WANTED_LEVEL": "warn"}).returncode == 0
    assert run(program, "--config", path, "--check", env={"WANTED_LEVEL": "loud"}).returncode == 1
    assert run(program, "--config", path, "--check").returncode == 1


# --- starting ------------------------------------------------------------------------------------------------

def assert_does_not_start(program, path, *words):
    """Started in earnest it ends with status 1 and one line that holds the words."""
    done = run(program, "--config", path)
    assert done.returncode == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    errors = [line for line in done.stderr.splitlines() if "warn" not in line.lower()]
    assert len(errors) == 1, done.stderr


@pytest.mark.smoke
@BOTH
@pytest.mark.parametrize("taken", ["listener", "admin"])
def test_an_address_in_use_ends_the_start_and_is_named(program, tmp_path, taken):
    with socket.socket() as holder:
        port = free_port()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        path = tmp_path / "config.yaml"
        path.write_text(minimal(program, **{"port" if taken == "listener" else "admin": port}))
        assert_does_not_start(program, path, f"127.0.0.1:{port}", "listeners" if taken == "listener" else "admin")


@pytest.mark.parametrize("content", [
    None, "", "# nothing\n", "a 0123\n", "ab 00112233445566778899aabbccddeeff\n",
    "a 00112233445566778899aabbccddeeff\na 10112233445566778899aabbccddeeff\n",
    "a 00112233445566778899aabbccddeefg\n",
], ids=["missing", "empty", "comments", "short-key", "long-id", "twice", "not-hex"])
def test_a_bad_key_file_ends_the_start(tmp_path, content):
    keys = tmp_path / "affinity.keys"
    if content is not None:
        keys.write_text(content)
        keys.chmod(0o600)
    path = tmp_path / "config.yaml"
    path.write_text(minimal("sidrail-proxy") + f"affinity_keys: {keys}\n")
    assert_does_not_start("sidrail-proxy", path, "affinity.keys")


@BOTH
@pytest.mark.parametrize("content", [None, "no certificate\n"], ids=["missing", "garbage"])
def test_an_unreadable_certificate_ends_the_start(program, tmp_path, content):
    cert = tmp_path / "tls.crt"
    if content:
        cert.write_text(content)
    pair = f"cert: {cert}, key: {tmp_path}/tls.key"
    tls = f"{{certificates: [{{{pair}}}]}}" if program == "sidrail-proxy" else f"{{{pair}}}"
    text = minimal(program).replace('"}]', f'", tls: {tls}}}]', 1)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert_does_not_start(program, path, "tls.crt")


@pytest.mark.smoke
def test_both_start_answer_and_end_when_told_to(broker, proxy):
    for server in (broker(), proxy([f"127.0.0.1:{free_port()}"])):
        for path in ("/livez", "/readyz", "/startupz"):
            assert http_get(server.admin + path)[0] == 200
        assert http_get(server.admin + "/nothing")[0] == 404
        assert server.metrics().samples
        assert server.status()
        assert "<html" in http_get(server.admin + "/")[1].lower()
        server.stop()
        assert server.problems() == []


@pytest.mark.smoke
def test_the_quick_start_of_the_proxy_serves(start, pod, tmp_path):
    endpoint = pod("node")
    port, admin = free_port(), free_port()

    class QuickProxy(daemons.Server):
        def is_ready(self):
            return http_get(f"http://127.0.0.1:{admin}/readyz")[0] == 200
        expected_status = (0, -9)

    server = start(QuickProxy("quick-proxy", [
        daemons.BUILD / "sidrail-proxy", "--listen", f"127.0.0.1:{port}", "--upstream", endpoint.address,
        "--admin", f"127.0.0.1:{admin}", "--threads", 1], tmp_path))
    status, text = http_get(f"http://127.0.0.1:{port}/pod")
    assert status == 200 and endpoint.name in text
    server.kill()


@pytest.mark.smoke
def test_the_quick_start_of_the_broker_serves(start, redis_server, tmp_path):
    import redis
    shard = redis_server()
    port, admin = free_port(), free_port()

    class QuickBroker(daemons.Server):
        def is_ready(self):
            return http_get(f"http://127.0.0.1:{admin}/readyz")[0] == 200

    start(QuickBroker("quick-broker", [
        daemons.BUILD / "sidrail-broker", "--listen", f"127.0.0.1:{port}", "--shard", shard.url,
        "--admin", f"127.0.0.1:{admin}"], tmp_path))
    with redis.Redis("127.0.0.1", port) as client:
        assert client.ping()


# --- running on ----------------------------------------------------------------------------------------------

def error_lines(server, word):
    return [line for line in server.log().splitlines() if word in line and re.search(r"\b(error|err)\b", line, re.I)]


def test_the_broker_runs_on_without_its_redis_and_finds_it_later(broker, start, tmp_path):
    port = free_port()
    server = broker(shards=[f"redis://127.0.0.1:{port}"])
    assert server.client().ping()
    wait_until(lambda: error_lines(server, str(port)), "the broker says that Redis is away")
    start(daemons.Redis("late-redis", tmp_path, port=port))
    listener = server.client().pubsub()
    listener.subscribe("news")

    def heard():
        server.client().publish("news", "hello")
        found = listener.get_message(ignore_subscribe_messages=True, timeout=0.2)
        return found and found["data"] == b"hello"
    wait_until(heard, "a message goes through the Redis that came late")
    assert len(error_lines(server, str(port))) <= 2, "one error line per change of state"


def test_a_wrong_password_is_said_once_and_the_broker_runs_on(broker, redis_server):
    shard = redis_server(password="right")
    server = broker(shards=[f"redis://:wrong@127.0.0.1:{shard.port}"])
    assert server.client().ping()
    found = wait_until(lambda: error_lines(server, str(shard.port)), "the broker says what is wrong")
    assert any(re.search("WRONGPASS|NOAUTH|password|auth", line, re.I) for line in found)
    assert "wrong@" not in server.log(), "the password is in the log"
