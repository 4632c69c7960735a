"""The admin port answers requests that are meant for it: a page whose name was rebound to its address learns nothing."""
import http.client

import pytest
import yaml
from daemons import Broker, Proxy, merged, wait_until


def ask(daemon, host, path="/status.json", method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.admin_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host)
    connection.putheader("Origin", "http://evil.example")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.mark.parametrize("kind", [Proxy, Broker])
def test_a_name_is_answered_when_it_is_in_the_list(kind, servers, tmp_path):
    daemon = servers.start(Proxy("it", tmp_path, ["127.0.0.1:9"]) if kind is Proxy else Broker("it", tmp_path))
    for path in ("/", "/status.json", "/metrics"):
        status, text = ask(daemon, f"evil.example:{daemon.admin_port}", path)
        assert status == 421 and "admin.hosts" in text and "version" not in text
    for host in (f"127.0.0.1:{daemon.admin_port}", "10.0.0.7:9090", "[::1]", "localhost:1"):
        assert ask(daemon, host)[0] == 200, host
    assert ask(daemon, "localhost", method="POST")[0] == 405  # nothing here changes anything
    daemon.config_path.write_text(yaml.safe_dump(merged(
        daemon.config, {"admin": merged(daemon.config["admin"], {"hosts": ["sidrail.internal"]})})))
    wait_until(lambda: ask(daemon, "Sidrail.internal:9090")[0] == 200, "the name is known after a reload")
    assert ask(daemon, "evil.example")[0] == 421
