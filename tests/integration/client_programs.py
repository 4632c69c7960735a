"""Programs of the Redis client libraries that pods use, run in environments of their versions."""
import subprocess
import textwrap

import pytest
from daemons import has_environment, python_of

PYTHON_SYNC = """
    import sys, redis
    url = sys.argv[1]
    for options in ({}, {"protocol": 3}) if int(redis.__version__.split(".")[0]) >= 5 else ({},):
        r = redis.Redis.from_url(url, client_name="lib", health_check_interval=1, **options)
        p = r.pubsub(ignore_subscribe_messages=True)
        p.subscribe("lib"); p.psubscribe("li?")
        while r.pubsub_numsub("lib")[0][1] == 0 or r.pubsub_numpat() == 0: p.get_message(timeout=0.1)
        for i in range(5): assert r.publish("lib", "x%d" % i) == 2
        got = []
        while len(got) < 10:
            m = p.get_message(timeout=5)
            if m: got.append((m["type"], m["data"]))
        assert got[::2] == [("message", b"x%d" % i) for i in range(5)] or got.count(("message", b"x0")) == 1, got
        pipe = r.pipeline()  # a transaction, unless told otherwise
        pipe.publish("lib", "one").publish("lib", "two").publish("nobody", "x")
        assert pipe.execute() == [2, 2, 0]
        pipe.watch("key"); pipe.multi(); pipe.publish("lib", "end")
        assert pipe.execute() == [2]
        got = []
        while ("message", b"end") not in got:
            m = p.get_message(timeout=5)
            if m and m["type"] == "message": got.append((m["type"], m["data"]))
        assert [data for _, data in got if data[:1] != b"x"] == [b"one", b"two", b"end"], got
        p.unsubscribe(); p.punsubscribe(); p.close(); r.close()
    print("well")
"""

PYTHON_ASYNC = """
    import asyncio, sys
    import redis.asyncio as redis
    async def main():
        r = redis.Redis.from_url(sys.argv[1])
        p = r.pubsub()
        await p.subscribe("lib-async")
        while (await p.get_message(timeout=1) or {}).get("type") != "subscribe": pass
        assert await asyncio.gather(*(r.publish("lib-async", str(i)) for i in range(20))) == [1] * 20
        got = set()
        while len(got) < 20:
            m = await p.get_message(timeout=5)
            if m: got.add(m["data"])
        pipe = r.pipeline()
        pipe.publish("lib-async", "one")
        pipe.publish("lib-async", "two")
        assert await pipe.execute() == [1, 1]
        got = []
        while len(got) < 2:
            m = await p.get_message(timeout=5)
            if m: got.append(m["data"])
        assert got == [b"one", b"two"], got
        await p.close()
    asyncio.run(main())
    print("well")
"""


def run_python(environment, code, url):
    if not has_environment(environment):
        pytest.skip(f"the environment {environment} is not made")
    result = subprocess.run([python_of(environment), "-c", textwrap.dedent(code), url], capture_output=True, text=True,
                            timeout=60)
    assert result.stdout == "well\n", result.stderr
