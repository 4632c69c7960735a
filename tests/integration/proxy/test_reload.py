"""Reload: what the file says next holds for what comes next, and nobody who is there is sent away.

    rewrite(daemon, change) ──▶ the configuration's file ──▶ reload(daemon): ctl ──▶ (status, what it said)

Requests of one keep-alive connection, sessions and WebSockets are watched across.
"""
import copy
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
import yaml
from daemons import BUILD, figure, free_port, sanitizer, wait_until
from discovery_tools import Pod, handshake, poll, sessions_on, states, wait_for_states
from engine_pods import Browser, engine_pods, static
from fakes import Client, Endpoint, frame, ok, switching

MASK = b"\x01\x02\xfe\xff"


def script(wire):
    """Echoes WebSockets; /slow is answered late; everything else tells what it was asked."""
    while True:
        line, fields = wire.head()
        wire.body(fields)
        if "upgrade" in fields:
            wire.send(switching(fields))
            while True:
                opcode, payload = wire.frame()
                wire.send(frame(payload, opcode))
        if "/slow" in line:
            time.sleep(1)
        told = {name: values[0].decode() if isinstance(values[0], bytes) else values[0] for name, values in fields.items()}
        wire.send(ok(json.dumps({"line": line, "fields": told}).encode()))


def write(path, text):
    """As an editor does it: a new file, renamed over the old one."""
    new = pathlib.Path(f"{path}.new")
    new.write_text(text)
    os.rename(new, path)


def rewrite(daemon, change):
    """Writes the configuration with `change(config)` made to it."""
    config = copy.deepcopy(daemon.config)
    change(config)
    daemon.config = config
    write(daemon.config_path, yaml.safe_dump(config, sort_keys=False))


def ask_ctl(daemon, line):
    """(ok, the rest of the answer); the bytes of the ctl socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(daemon.folder / f"{daemon.name}.sock"))
        sock.sendall(line.encode() + b"\n")
        answer = b""
        while got := sock.recv(65536):
            answer += got
    first, _, rest = answer.decode().partition("\n")
    return first == "ok", rest


def reload(daemon):
    is_ok, text = ask_ctl(daemon, "reload")
    assert is_ok, text
    return text


def change(daemon, what):
    rewrite(daemon, what)
    return reload(daemon)


def ctl(daemon, *words):
    return subprocess.run([BUILD / "sidrail-proxy", "ctl", "--socket", daemon.folder / f"{daemon.name}.sock", *words],
                          capture_output=True, text=True, timeout=60)


def reloads(daemon, result="applied"):
    return daemon.metrics().get("sidrail_proxy_reloads_total", result=result)


def settled_fds(daemon, bound):
    """Connections of the admin port and to endpoints end a little later."""
    wait_until(lambda: daemon.open_fds() <= bound, f"there are at most {bound} descriptors")
    return daemon.open_fds()


def tunnel(port):
    """An open WebSocket that has been answered once."""
    client = Client(port)
    client.upgrade(b"/socket.io/?EIO=4&transport=websocket")
    assert client.head()[0].split(" ")[1] == "101"
    assert echoes(client, b"hello")
    return client


def echoes(client, payload):
    client.send(frame(payload, 1, mask=MASK))
    return client.frame() == (1, payload)


@pytest.fixture
def endpoint():
    with Endpoint(script) as made:
        yield made


# --- what takes effect --------------------------------------------------------------------------------------------


def test_the_next_request_of_a_connection_sees_every_changed_option(proxy, endpoint):
    daemon = proxy([endpoint.address])
    with Client(daemon.port) as client:
        def asked(target=b"/x", extra=b"", method=b"GET"):
            status, fields, body = client.get(target, extra, method)
            return status, fields, json.loads(body) if status == 200 else body

        assert asked()[0] == 200
        route = {"host": "*", "path": "/", "upstream": "chat"}
        change(daemon, lambda c: c.update(routes=[{**route, "request_headers": {"set": {"X-One": "1"}},
                                                   "response_headers": {"set": {"X-Two": "2"}}}]))
        status, fields, told = asked()
        assert (told["fields"]["x-one"], status) == ("1", 200) and "x-two" in fields
        change(daemon, lambda c: c.update(routes=[{**route, "path": "/only"}]))
        assert asked()[0] == 404
        assert asked(b"/only/x")[0] == 200
        change(daemon, lambda c: c.update(routes=[route], access={"deny": ["127.0.0.1/32"]}))
        assert asked()[0] == 403
        change(daemon, lambda c: c.update(access={"origins": ["https://a.test"]}))
        assert asked(b"/socket.io/?EIO=4&transport=polling", b"Origin: https://b.test\r\n")[0] == 403
        change(daemon, lambda c: c.update(access={}, trusted_proxies=["127.0.0.0/8"]))
        assert asked(extra=b"X-Forwarded-For: 192.0.2.7\r\n")[2]["fields"]["x-forwarded-for"].startswith("192.0.2.7")
        change(daemon, lambda c: c.update(trusted_proxies=[]))
        assert "192.0.2.7" not in asked(extra=b"X-Forwarded-For: 192.0.2.7\r\n")[2]["fields"]["x-forwarded-for"]
        change(daemon, lambda c: c.update(engine_io_paths=["/live/"]))
        assert asked(b"/live/?EIO=4&transport=polling", method=b"PUT")[0] == 405, "an Engine.IO path now"
        change(daemon, lambda c: c.update(limits={"body_bytes": 4}))
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345")
        assert client.response()[0] == 413
    assert daemon.metrics().get("sidrail_proxy_clients_accepted_total") == 1, "all on one connection"


def closed_for(daemon, reason):
    return daemon.metrics().get("sidrail_proxy_clients_closed_total", reason=reason)


def test_who_waits_already_learns_of_shorter_timeouts(proxy, endpoint):
    daemon = proxy([endpoint.address], config={"timeouts": {"tunnel_idle": "1h", "keep_alive": "1h"}})
    silent, idle, talks = tunnel(daemon.port), Client(daemon.port), tunnel(daemon.port)
    assert idle.get(b"/x")[0] == 200
    change(daemon, lambda c: c.update(timeouts={"tunnel_idle": "1s", "keep_alive": "1s"}))

    def both_are_let_go():
        assert echoes(talks, b"not silent")
        return closed_for(daemon, "tunnel_idle") == 1 and closed_for(daemon, "keep_alive_idle") == 1
    wait_until(both_are_let_go, "both are let go")
    change(daemon, lambda c: c.update(timeouts={"tunnel_idle": "1h"}))
    time.sleep(1.5)
    assert echoes(talks, b"has an hour")
    for client in (silent, idle, talks):
        client.close()


def test_an_exchange_in_flight_ends_as_it_began(proxy, endpoint):
    daemon = proxy([endpoint.address])
    route = {"host": "*", "path": "/", "upstream": "chat"}
    change(daemon, lambda c: c.update(routes=[{**route, "response_headers": {"set": {"X-Generation": "old"}}}]))
    with Client(daemon.port) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_endpoint_exchanges") == 1, "it is in flight")
        for number in range(3):
            change(daemon, lambda c, n=number: c.update(
                routes=[{**route, "response_headers": {"set": {"X-Generation": f"new{n}"}}}]))
        _, fields, body = client.response()
        assert b"old" in str(fields["x-generation"]).encode() and b"/slow" in body
        assert "new2" in str(client.get(b"/x")[1]["x-generation"])


def test_the_log_follows_and_a_level_that_ctl_has_set_stays(proxy, endpoint):
    daemon = proxy([endpoint.address], config={"log": {"level": "info", "format": "text"}})
    assert ctl(daemon, "log-level", "error").returncode == 0
    change(daemon, lambda c: c.update(trusted_hops=2))
    assert "the configuration is in use" not in daemon.log(), "that is a line of level info"
    change(daemon, lambda c: c["log"].update(level="debug", format="json"))
    daemon.wait_log('"level":"info".*"message":"the configuration is in use"')


# --- what is refused ----------------------------------------------------------------------------------------------


def breakages(folder, taken):
    listener = {"address": f"127.0.0.1:{free_port()}"}
    (folder / "bad.keys").write_text("not a key\n")
    return {
        "an unknown key": (lambda c: c.update(lisners=[]), r"\.yaml:\d+:\d+: .*lisners"),
        "a value out of range": (lambda c: c.update(trusted_hops=99), r"\.yaml:\d+:\d+: .*trusted_hops"),
        "a route to nowhere": (lambda c: c.update(routes=[{"upstream": "none"}]), r"\.yaml:\d+:\d+: .*none"),
        "an address in use": (lambda c: c["listeners"].append({"address": taken}),
                              rf"listeners\[1\]\.address: {taken}: .*in use"),
        "no key file": (lambda c: c.update(affinity_keys=str(folder / "none.keys")), r"affinity_keys: .*none\.keys"),
        "a bad key file": (lambda c: c.update(affinity_keys=str(folder / "bad.keys")), r"affinity_keys: .*line 1"),
        "no certificate": (lambda c: c["listeners"].append({**listener, "tls": {"certificates": [
            {"cert": str(folder / "none.pem"), "key": str(folder / "none.pem")}]}}), r"listeners\[1\]\.tls: .*none\.pem"),
        "no CA of the endpoints": (lambda c: c["upstreams"][0].update(tls={"ca": str(folder / "none.pem")}),
                                   r"tls of upstream chat: .*none\.pem"),
        "what is no name": (lambda c: c["upstreams"].append(
            {"name": "odd", "discovery": {"static": ["127.1:1"]}}), r"static\[0\].*neither a numeric address nor a host name"),
    }


def test_a_bad_configuration_changes_nothing_and_says_why(proxy, endpoint, tmp_path):
    daemon = proxy([endpoint.address])
    good = daemon.config
    with Client(daemon.port) as client, socket.create_server(("127.0.0.1", 0)) as other:
        held = tunnel(daemon.port)
        generation, fds = daemon.status()["generation"], daemon.open_fds()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for count, (name, (breakage, wanted)) in enumerate(breakages(tmp_path, taken).items(), 1):
            daemon.config = good
            rewrite(daemon, lambda c, b=breakage: (c.update(access={"deny": ["0.0.0.0/0"]}), b(c)))
            told = ctl(daemon, "reload")
            assert told.returncode == 1 and re.search(wanted, told.stderr), (name, told)
            assert reloads(daemon, "refused") >= count
            assert daemon.metrics().get("sidrail_proxy_reload_last_refused") == 1
            assert daemon.status()["reload"]["error"] in told.stderr
            assert client.get(b"/x")[0] == 200, "the old one holds"
            assert echoes(held, b"still here")
        assert daemon.status()["generation"] == generation
        settled_fds(daemon, fds)
        write(daemon.config_path, "a: [unclosed\n")
        assert ctl(daemon, "reload").returncode == 1
        daemon.config_path.unlink()
        told = ctl(daemon, "reload")
        assert told.returncode == 1 and "No such file" in told.stderr
        daemon.config = good
        told = change(daemon, lambda c: None)
        assert "generation" in told
        assert daemon.metrics().get("sidrail_proxy_reload_last_refused") == 0
        assert daemon.status()["reload"]["error"] == ""
        held.close()
    assert re.search(r"error .*refused, the configuration stays as it was.* why=.*lisners", daemon.log())


def test_what_needs_a_restart_is_told_in_one_warning_and_the_rest_taken(proxy, endpoint):
    daemon = proxy([endpoint.address])
    told = change(daemon, lambda c: (c.update(threads=3, trusted_hops=2), c["admin"].update(address="127.0.0.1:1")))
    assert "threads, admin.address" in told
    change(daemon, lambda c: c.update(trusted_hops=3))
    warnings = re.findall(r"warn .*options=\"?threads, admin.address", daemon.log())
    assert len(warnings) == 1, daemon.log_tail()
    assert daemon.metrics().get("sidrail_proxy_reload_restart_options") == 2
    assert daemon.status()["workers"] == 2
    told = change(daemon, lambda c: (c.update(threads=2), c["admin"].update(address=f"127.0.0.1:{daemon.admin_port}")))
    assert "restart" not in told
    assert daemon.metrics().get("sidrail_proxy_reload_restart_options") == 0


def test_a_quick_start_has_nothing_to_reload(servers, endpoint):
    daemon = servers.proxy([endpoint.address])
    daemon.stop()
    daemon.argv = [daemon.argv[0], "--listen", daemon.address, "--upstream", endpoint.address,
                   "--admin", f"127.0.0.1:{daemon.admin_port}"]
    daemon.env["XDG_RUNTIME_DIR"] = str(daemon.folder)
    daemon.start()
    daemon.signal(signal.SIGHUP)
    daemon.wait_log("started without --config")
    with Client(daemon.port) as client:
        assert client.get(b"/x")[0] == 200
    daemon.kill()


# --- how it is asked for ------------------------------------------------------------------------------------------


def denied(daemon):
    with Client(daemon.port) as client:
        return client.get(b"/x")[0] == 403


def test_sighup_reloads(proxy, endpoint):
    daemon = proxy([endpoint.address])
    rewrite(daemon, lambda c: c.update(access={"deny": ["0.0.0.0/0"]}))
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: denied(daemon), "the new configuration holds")


def test_a_changed_file_is_taken_over_by_itself_and_a_touched_one_is_not(proxy, endpoint):
    daemon = proxy([endpoint.address])
    rewrite(daemon, lambda c: c.update(access={"deny": ["0.0.0.0/0"]}))
    wait_until(lambda: denied(daemon), "the new configuration holds")
    before = reloads(daemon)
    rewrite(daemon, lambda c: None)
    rewrite(daemon, lambda c: c.pop("access"))
    wait_until(lambda: not denied(daemon), "the next one holds")
    assert reloads(daemon) <= before + 1


def test_a_config_map_that_is_swapped_is_taken_over(servers, endpoint):
    daemon = servers.proxy([endpoint.address])
    daemon.stop()
    mount = daemon.folder / "mount"

    def mounted(number, config):
        folder = mount / f"..{number}"
        folder.mkdir(parents=True)
        (folder / "proxy.yaml").write_text(yaml.safe_dump(config))
        (mount / "..data_tmp").symlink_to(folder.name)
        os.rename(mount / "..data_tmp", mount / "..data")

    mounted(1, daemon.config)
    (mount / "proxy.yaml").symlink_to("..data/proxy.yaml")
    daemon.argv[daemon.argv.index("--config") + 1] = str(mount / "proxy.yaml")
    daemon.start()
    assert not denied(daemon)
    mounted(2, {**daemon.config, "access": {"deny": ["0.0.0.0/0"]}})
    wait_until(lambda: denied(daemon), "the new configuration holds")
    mounted(3, daemon.config)
    wait_until(lambda: not denied(daemon), "the old one again")


def test_many_who_ask_at_once_are_all_answered(proxy, endpoint):
    daemon = proxy([endpoint.address])
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask_ctl(daemon, "reload"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [is_ok for is_ok, _ in answers] == [True] * 20
    assert 1 <= reloads(daemon) <= 20


def test_the_end_comes_well_amid_reloads(proxy, endpoint):
    for order in ("shutdown", "shutdown --no-wait"):
        daemon = proxy([endpoint.address])
        daemon.expect_death()
        threads = [threading.Thread(target=ask_many, args=(daemon,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: reloads(daemon) > 5, "it is being reloaded")
        assert ask_ctl(daemon, order)[0]
        assert daemon.wait_exit() == 0
        for thread in threads:
            thread.join()


def ask_many(daemon):
    """Reloads until nobody is there."""
    try:
        while True:
            ask_ctl(daemon, "reload")
    except OSError:
        pass


# --- listeners ----------------------------------------------------------------------------------------------------


def listening_inodes(daemon, port):
    """The sockets of that port that the process listens on."""
    with open(f"/proc/{daemon.pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sorted(row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A")


def test_a_listener_that_stays_keeps_its_sockets_and_others_come_and_go(proxy, endpoint):
    daemon = proxy([endpoint.address])
    kept = listening_inodes(daemon, daemon.port)
    held = tunnel(daemon.port)
    port, unix = free_port(), daemon.folder / "web.sock"
    assert len(kept) == 2
    for _ in range(3):
        change(daemon, lambda c: c.update(listeners=[{"address": f"unix:{unix}"}, {"address": daemon.address},
                                                     {"address": f"127.0.0.1:{port}"}]))
        with Client(port) as client:
            assert client.get(b"/x")[0] == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(unix))
            sock.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        change(daemon, lambda c: c.update(listeners=[{"address": daemon.address}]))
        with pytest.raises(ConnectionRefusedError):
            Client(port)
        assert not unix.exists()
    assert listening_inodes(daemon, daemon.port) == kept
    assert echoes(held, b"still here")
    held.close()


def test_the_clients_of_a_removed_listener_are_let_go_as_at_a_shutdown(proxy, endpoint):
    port = free_port()
    daemon = proxy([endpoint.address], config={"shutdown": {"window": "1s"}})
    change(daemon, lambda c: c["listeners"].append({"address": f"127.0.0.1:{port}"}))
    stays, leaves = tunnel(daemon.port), [tunnel(port) for _ in range(20)]
    idle, busy, fresh = Client(port), Client(port), Client(port)
    assert idle.get(b"/x")[0] == 200
    busy.send(b"GET /slow HTTP/1.1\r\nHost: edge.test\r\n\r\n")
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_endpoint_exchanges") == 1, "it is in flight")
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_clients_open") == 24, "all are accepted")
    change(daemon, lambda c: c["listeners"].pop())
    assert idle.rest() == b""
    status, fields, _ = busy.response()
    assert status == 200 and "close" in str(fields["connection"])
    status, fields, _ = fresh.get(b"/x")
    assert status == 200 and "close" in str(fields["connection"]), "it is answered once"
    for client in leaves:
        assert client.frame() == (8, (1012).to_bytes(2, "big"))
        client.close()
    wait_until(lambda: daemon.metrics().get("sidrail_proxy_clients_closed_total", reason="listener_removed") == 21,
               "each has the reason")
    assert echoes(stays, b"still here")
    stays.close()


def test_a_kept_listener_may_change_what_it_is(proxy, endpoint, certificate):
    daemon = proxy([endpoint.address])
    held = tunnel(daemon.port)
    kept = listening_inodes(daemon, daemon.port)
    change(daemon, lambda c: c["listeners"][0].update(
        tls={"certificates": [{"cert": certificate[0], "key": certificate[1]}]}))
    assert names(daemon.port) == "one.test"
    assert echoes(held, b"in plain text as before")
    change(daemon, lambda c: c["listeners"][0].pop("tls"))
    with Client(daemon.port) as client:
        assert client.get(b"/x")[0] == 200
    assert listening_inodes(daemon, daemon.port) == kept
    held.close()


# --- TLS ----------------------------------------------------------------------------------------------------------


def make_certificate(folder, name):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
                    "2", "-subj", f"/CN={name}", "-keyout", folder / "key.pem.new", "-out", folder / "cert.pem.new"],
                   check=True, capture_output=True)
    for file in ("key.pem", "cert.pem"):
        os.rename(folder / f"{file}.new", folder / file)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture
def certificate(tmp_path):
    return make_certificate(tmp_path, "one.test")


def names(port):
    """The name in the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    shown = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True, check=True)
    return shown.stdout.strip().replace(" ", "").rpartition("CN=")[2]


def test_certificates_are_taken_over_when_their_files_change(proxy, endpoint, certificate, tmp_path):
    daemon = proxy([endpoint.address])
    change(daemon, lambda c: c["listeners"][0].update(
        tls={"certificates": [{"cert": certificate[0], "key": certificate[1]}]}))
    context = ssl._create_unverified_context()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", daemon.port), 15)) as held:
        def asks():
            held.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            return held.recv(65536).startswith(b"HTTP/1.1 200")
        assert asks() and names(daemon.port) == "one.test"
        make_certificate(tmp_path, "two.test")
        wait_until(lambda: names(daemon.port) == "two.test", "the new one is shown")
        assert asks(), "a connection keeps what it began with"
        (tmp_path / "cert.pem").write_text("garbage\n")
        wait_until(lambda: reloads(daemon, "refused") >= 1, "a bad one is refused")
        assert names(daemon.port) == "two.test" and asks()


# --- upstreams and sessions ---------------------------------------------------------------------------------------


@pytest.fixture
def pods():
    made = [Pod(f"pod-{i}") for i in range(4)]
    yield made
    for pod in made:
        pod.close()


def upstream(pods, name="chat", **more):
    return {"name": name, "health_check": {"type": "none"}, "discovery": {"static": static(pods)}, **more}


def all_at_home(daemon, held):
    return all(poll(daemon.port, sid) == (200, name) for name, sids in held.items() for sid in sids)


def test_sessions_stay_while_endpoints_and_upstreams_change_around_them(proxy, pods):
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]})
    held = sessions_on(daemon.port, pods[:2])
    change(daemon, lambda c: c.update(upstreams=[upstream(pods, slow_start="5s", place_after="1s")]))
    assert all_at_home(daemon, held), "scaling up moves nobody"
    change(daemon, lambda c: c.update(
        upstreams=[upstream(pods[3:], "other"), upstream(pods[:3])],
        routes=[{"host": "*", "path": "/other", "upstream": "other"}, {"host": "*", "path": "/", "upstream": "chat"}]))
    assert all_at_home(daemon, held), "another place in the list is the same upstream"
    with Client(daemon.port) as client:
        assert client.get(b"/other/socket.io/?EIO=4&transport=polling")[0] == 200
    change(daemon, lambda c: c.update(upstreams=[upstream(pods[1:2])], routes=[{"upstream": "chat"}]))
    assert all_at_home(daemon, {"pod-1": held["pod-1"]})
    for sid in held["pod-0"]:
        status, body = poll(daemon.port, sid)
        assert status == 400 and json.loads(body)["code"] == 1, "lost, not delivered to another"
    assert all(pod.strangers == 0 for pod in pods)


def named(address, name, **more):
    return {"name": name, "health_check": {"type": "none"}, "discovery": {"static": [address]}, **more}


def drained(daemon):
    return closed_for(daemon, "drained")


def told(daemon):
    return daemon.metrics().get("sidrail_proxy_drain_closes_total", how="told")


def left_at(clients, began):
    """When each is told to come back, in seconds since `began`."""
    moments = []
    for client in clients:
        assert client.frame() == (8, (1012).to_bytes(2, "big"))
        moments.append(time.monotonic() - began)
        client.close()
    return moments


def test_websockets_of_an_upstream_that_is_removed_drain_as_it_said_last(proxy, endpoint):
    with Endpoint(script) as second:
        other = named(second.address, "other", drain={"delay": "1h", "window": "1h"})
        daemon = proxy([], config={"upstreams": [named(endpoint.address, "chat"), other],
                                   "routes": [{"host": "other.test", "upstream": "other"}, {"upstream": "chat"}]})
        stays, leaving = tunnel(daemon.port), [tunnel_to(daemon.port, b"other.test") for _ in range(40)]
        change(daemon, lambda c: c["upstreams"][1].update(drain={"delay": "500ms", "window": "3s"}))
        time.sleep(1)
        assert told(daemon) == 0 and all(echoes(client, b"it is listed") for client in leaving)
        began = time.monotonic()
        change(daemon, lambda c: c.update(upstreams=c["upstreams"][:1], routes=[{"upstream": "chat"}]))
        assert {row["upstream"] for row in daemon.status()["endpoints"]} == {"chat"}
        change(daemon, lambda c: c.update(trusted_hops=3))
        wait_until(lambda: told(daemon) >= 5, "the first are told")
        assert told(daemon) < 40 or time.monotonic() - began > 3.5, "not all at once"
        assert min(left_at(leaving, began)) >= 0.5, "not before the delay is over"
        wait_until(lambda: drained(daemon) == told(daemon) == 40, "all have left for that reason")
        assert echoes(stays, b"of another upstream")
        stays.close()


def test_websockets_of_an_upstream_that_is_renamed_stay_until_their_endpoint_drains(proxy, endpoint):
    with Endpoint(script) as second:
        quick = {"drain": {"delay": "0s", "window": "500ms"}}
        both = {"discovery": {"static": [endpoint.address, second.address]}}
        daemon = proxy([], config={"upstreams": [named(endpoint.address, "chat", **quick)]})
        held = [tunnel(daemon.port) for _ in range(5)]
        change(daemon, lambda c: c.update(upstreams=[named("", "talk", **both)], routes=[{"upstream": "talk"}]))
        assert {row["upstream"] for row in daemon.status()["endpoints"]} == {"talk"}
        time.sleep(1)
        assert told(daemon) == 0 and all(echoes(client, b"renamed") for client in held)
        change(daemon, lambda c: c.update(upstreams=[named(second.address, "talk")]))
        left_at(held, time.monotonic())
        wait_until(lambda: daemon.metrics().get("sidrail_proxy_tunnels_open") == 0, "all are gone")


def test_websockets_of_a_removed_upstream_stay_until_the_others_know_their_endpoints(proxy, endpoint, tmp_path):
    """The same endpoints, by another name and from another source, which has no answer yet."""
    listed = tmp_path / "endpoints.json"
    quick = {"drain": {"delay": "0s", "window": "500ms"}}
    daemon = proxy([], config={"upstreams": [named(endpoint.address, "chat", **quick)]})
    held = tunnel(daemon.port)
    talk = {"name": "talk", "health_check": {"type": "none"}, "discovery": {"file": str(listed)}}
    change(daemon, lambda c: c.update(upstreams=[talk], routes=[{"upstream": "talk"}]))
    time.sleep(1)
    assert echoes(held, b"nothing is known")
    write(listed, json.dumps([{"address": endpoint.address, "id": "pod"}]))
    wait_for_states(daemon, {"pod": "ready"})
    time.sleep(1)
    assert echoes(held, b"renamed")
    ok, text = ask_ctl(daemon, "drain pod")
    assert ok, text
    left_at([held], time.monotonic())


def test_what_an_operator_ordered_outlives_reloads_and_other_sources(proxy, pods, tmp_path):
    listed = tmp_path / "endpoints.json"
    listed.write_text(json.dumps(static(pods[:3])))
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]})

    def orders():
        return {row["id"]: (row["state"] == "draining", row["weight"]) for row in daemon.status()["endpoints"]
                if row["by_operator"]}

    assert ask_ctl(daemon, "drain pod-0")[0] and ask_ctl(daemon, "weight pod-1 7")[0]
    ordered = {"pod-0": (True, 1), "pod-1": (False, 7)}
    assert orders() == ordered
    change(daemon, lambda c: c["upstreams"][0].update(herd_spread="1s"))
    assert orders() == ordered
    change(daemon, lambda c: c["upstreams"][0].update(discovery={"file": str(listed)}))
    wait_until(lambda: len(states(daemon)) == 3, "the file is read")
    assert orders() == ordered
    write(listed, json.dumps(static(pods[1:3])))
    wait_until(lambda: len(states(daemon)) == 2, "one has gone")
    write(listed, json.dumps(static(pods[:3])))
    wait_until(lambda: len(states(daemon)) == 3, "it is there again")
    assert orders() == ordered
    assert ask_ctl(daemon, "undrain pod-0")[0] and ask_ctl(daemon, "weight pod-1 auto")[0]
    assert orders() == {}
    reload(daemon)
    assert orders() == {} and set(states(daemon)) == {"pod-0", "pod-1", "pod-2"}


def test_another_source_of_endpoints_takes_over(proxy, pods, tmp_path):
    listed = tmp_path / "endpoints.json"
    listed.write_text(json.dumps(static(pods[:3])))
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]})
    held = sessions_on(daemon.port, pods[:2])
    change(daemon, lambda c: c["upstreams"][0].update(discovery={"file": str(listed)}))
    wait_for_states(daemon, {f"pod-{i}": "ready" for i in range(3)})
    assert all_at_home(daemon, held)
    write(listed, json.dumps(static(pods)))
    wait_for_states(daemon, {f"pod-{i}": "ready" for i in range(4)})
    change(daemon, lambda c: c["upstreams"][0].update(discovery={"static": static(pods[:2])}))
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})
    assert all_at_home(daemon, held)


def test_health_checks_begin_change_and_end(proxy, pods):
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]})
    pods[0].health = b"503 Busy"
    checks = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}
    change(daemon, lambda c: c["upstreams"][0].update(health_check=checks))
    wait_for_states(daemon, {"pod-0": "degraded", "pod-1": "ready"})
    change(daemon, lambda c: c["upstreams"][0].update(slow_start="1s"))
    assert states(daemon)["pod-0"] == "degraded", "a verdict lasts"
    change(daemon, lambda c: c["upstreams"][0].update(health_check={"type": "none"}))
    wait_for_states(daemon, {"pod-0": "ready", "pod-1": "ready"})

    def nobody_probes():
        """For several intervals; the last probe may be under way still."""
        probes = pods[0].probes
        time.sleep(0.5)
        return pods[0].probes == probes
    wait_until(nobody_probes, "the probes have ended")


def test_keys_rotate_without_losing_a_session(proxy, pods, affinity_keys):
    old, new = affinity_keys.read_text(), f"b {secrets.token_hex(16)}\n"
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]}, keys=affinity_keys)
    held = sessions_on(daemon.port, pods[:2])
    for text, writer in ((old + new, "a"), (new + old, "b")):
        write(affinity_keys, text)
        os.chmod(affinity_keys, 0o600)
        reload(daemon)
        sid = handshake(daemon.port)
        assert sid.rpartition(".")[2][0] == writer
        assert all_at_home(daemon, held)
    held = {name: [*sids, *more] for (name, sids), more in zip(held.items(), sessions_on(daemon.port, pods[:2]).values())}
    write(affinity_keys, new)
    wait_until(lambda: poll(daemon.port, held["pod-0"][0])[0] == 400, "the old key is taken out, by itself")
    assert poll(daemon.port, held["pod-0"][-1]) == (200, "pod-0")


def test_a_process_that_made_its_own_keys_keeps_them(proxy, pods):
    daemon = proxy([], config={"upstreams": [upstream(pods[:2])]})
    held = sessions_on(daemon.port, pods[:2])
    for number in range(5):
        change(daemon, lambda c, n=number: c.update(trusted_hops=n + 1))
        assert all_at_home(daemon, held)


def test_cookies_change_for_new_sessions(proxy):
    with engine_pods("a", "b") as pods:
        daemon = proxy([], config={"upstreams": [upstream(pods)]})
        first = Browser(daemon)
        session = first.open()
        assert list(first.cookies) == ["sidrail_chat"]
        change(daemon, lambda c: c["upstreams"][0].update(affinity={"cookie": {"name": "place"}}))
        second = Browser(daemon)
        second.open()
        assert list(second.cookies) == ["place"]
        assert session.is_at_home()


# --- ten thousand -------------------------------------------------------------------------------------------------


class Traffic:
    """Sessions that poll and WebSockets that echo until they are told to stop; what goes wrong is in `wrong`."""

    def __init__(self, daemon, pods):
        self.daemon, self.pods = daemon, pods
        self.wrong, self.requests, self.is_over = [], 0, False
        self.threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._poll, self._keep_asking)]
        for thread in self.threads:
            thread.start()

    def _guard(self, work):
        try:
            work()
        except Exception as error:  # shown by the test
            self.wrong.append(repr(error))

    def _poll(self):
        held = sessions_on(self.daemon.port, self.pods)
        while not self.is_over:
            for name, sids in held.items():
                answers = [poll(self.daemon.port, sid) for sid in sids]
                assert answers == [(200, name)] * len(sids), answers
                self.requests += len(sids)
                time.sleep(0.01)

    def _keep_asking(self):
        """All on one connection."""
        with Client(self.daemon.port) as client:
            while not self.is_over:
                status, _, _ = client.get(b"/socket.io/?EIO=4&transport=polling")
                assert status == 200, status
                self.requests += 1
                time.sleep(0.01)

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def rss(daemon):
    return int(re.search(r"^VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{daemon.pid}/status").read_text(), re.M)[1]) * 1024


def test_reloads_by_the_thousand_close_nothing_and_cost_nothing(proxy, endpoint, pods, tmp_path, record_property):
    count, warm = figure(300, 10000), figure(60, 500)
    listed = tmp_path / "endpoints.json"
    listed.write_text(json.dumps([{"address": endpoint.address, "id": "ws"}]))
    config = {"upstreams": [upstream(pods[:2]), {"name": "ws", "health_check": {"type": "none"},
                                                 "discovery": {"file": str(listed)}}],
              "routes": [{"host": "ws.test", "upstream": "ws"}, {"upstream": "chat"}],
              "log": {"level": "warn", "access": "off"}}
    daemon = proxy([], config=config)
    extra = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    kept = listening_inodes(daemon, daemon.port)

    def step(number):
        """A little of everything, differently each time."""
        def changes(c):
            c["trusted_hops"] = 1 + number % 30
            c["listeners"] = [{"address": daemon.address}, *({"address": extra[i]} for i in range(2) if number >> i & 1)]
            c["routes"] = [{"host": "ws.test", "upstream": "ws"},
                           {"upstream": "chat", "response_headers": {"set": {"X-Number": str(number)}}}]
            c["upstreams"] = [upstream(pods[:2 + number % 3], slow_start=f"{number % 5}s"),
                              *[upstream(pods[3:], "coming")] * (number % 2), config["upstreams"][1]]
            c["timeouts"] = {"tunnel_idle": f"{300 + number % 7}s", "keep_alive": f"{60 + number % 7}s"}
        change(daemon, changes)

    held = [tunnel_to(daemon.port, b"ws.test") for _ in range(figure(20, 200))]
    traffic = Traffic(daemon, pods[:2])
    for number in range(warm):
        step(number)
    fds, memory = daemon.open_fds(), rss(daemon)
    began = time.monotonic()
    for number in range(count):
        step(warm + number)
        if number % 5 == 0:
            assert echoes(held[number // 5 % len(held)], b"%d" % number)
    lasted = time.monotonic() - began
    traffic.stop()
    assert traffic.wrong == [] and traffic.requests > 20
    assert all(echoes(client, b"to the end") for client in held)
    grown = rss(daemon) - memory
    step(warm - 1)
    after = settled_fds(daemon, fds + 8)
    record_property("reloads", count)
    record_property("grown_bytes", grown)
    print(f"{count} reloads in {lasted:.1f} s under {traffic.requests} requests: {grown / 1024:.0f} KiB more memory, "
          f"{fds} descriptors before, {after} after")
    metrics = daemon.metrics()
    assert reloads(daemon) >= warm + count and reloads(daemon, "refused") == 0
    assert metrics.get("sidrail_proxy_tunnels_open") == len(held)
    closed = metrics.by("sidrail_proxy_clients_closed_total", "reason")
    assert {reason for reason, number in closed.items() if number} <= {"client_left", "done"}, closed
    assert listening_inodes(daemon, daemon.port) == kept
    if not sanitizer():
        assert grown < 2 << 20, "memory stays flat"
    for client in held:
        client.close()


def tunnel_to(port, host):
    client = Client(port)
    client.send(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: " + host + b"\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert client.head()[0].split(" ")[1] == "101"
    return client
