"""An edge with short deadlines in front of one scripted endpoint, for the tests of a file; pods, and riders that are ended."""
import pytest
from http_tools import OK, Endpoint
from riders import Pod

CONFIG = {
    "timeouts": {"request_head": "1s", "keep_alive": "2s", "connect": "2s", "poll": "3s", "write_stall": "2s",
                 "endpoint_keep_alive": "1s"},
    "limits": {"websocket_frame_bytes": "64KiB"},
    "trusted_proxies": ["127.0.0.2/32"],
}


@pytest.fixture(scope="module")
def module_edge(module_servers):
    endpoint = Endpoint()
    yield module_servers.proxy([endpoint.address], config=CONFIG), endpoint
    endpoint.close()


@pytest.fixture
def edge(module_edge):
    """(proxy, endpoint); the endpoint answers OK and has forgotten what came before."""
    module_edge[1].reset(OK)
    return module_edge


@pytest.fixture
def configured(servers):
    """configured({...}) starts an edge of this test's own: (proxy, endpoint)."""
    made = []

    def configure(config, answer=OK, **options):
        endpoint = Endpoint(answer)
        made.append(endpoint)
        merged = dict(CONFIG)
        for key, value in config.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if both else value
        return servers.proxy([endpoint.address], config=merged, **options), endpoint

    yield configure
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def pods():
    made = [Pod(f"pod-{i}") for i in range(3)]
    yield made
    for pod in made:
        pod.close()


@pytest.fixture
def riders():
    """A list for the test's riders, which end with it."""
    made = []
    yield made
    for rider in made:
        rider.end()
