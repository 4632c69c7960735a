"""A pod that does nothing: the listening half of one version of python-socketio, sync or async.

    idle_pod.py sync|async URL [OPTION=SECONDS…]

Writes "heard" for each emit that comes, "logged …" for each warning and error of any library, and "failed …" when
something ends; OPTION is one of redis-py's. Ends when its stdin does.
"""
import asyncio
import logging
import os
import sys
import traceback


class Tell(logging.Handler):
    def emit(self, record):
        print("logged", record.name, repr(record.getMessage()), flush=True)


logging.getLogger().addHandler(Tell(logging.WARNING))

import socketio  # noqa: E402


def options():
    pairs = (word.split("=") for word in sys.argv[3:])
    found = {name: float(value) for name, value in pairs}
    return {"redis_options": found} if found else {}


def heard(*_):
    print("heard", flush=True)


def run_sync(url):
    manager = socketio.RedisManager(url, **options())
    manager._handle_emit = heard
    server = socketio.Server(client_manager=manager, async_mode="threading", logger=True)
    server.manager.initialize()
    sys.stdin.read()


async def run_async(url):
    manager = socketio.AsyncRedisManager(url, **options())

    async def handle(message):
        heard()

    manager._handle_emit = handle
    server = socketio.AsyncServer(client_manager=manager, async_mode="asgi", logger=True)
    started = server.manager.initialize()
    if started is not None:
        await started
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


try:
    if sys.argv[1] == "sync":
        run_sync(sys.argv[2])
        os._exit(0)  # the listening thread has no end
    else:
        asyncio.run(run_async(sys.argv[2]))
except Exception:
    print("failed", repr(traceback.format_exc()), flush=True)
