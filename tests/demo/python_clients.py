"""Many python-socketio clients in one process: the twin of js_clients.js, same lines in and out.

Every second client of each transport is the synchronous `Client` (requests, websocket-client:
another head order, another use of connections), the rest are `AsyncClient`s on aiohttp; a wish
may say which ("kind": "sync" or "async").  None keeps a cookie and none reconnects.
"""

import asyncio
import concurrent.futures
import http.cookiejar
import json
import logging
import sys
import threading

import aiohttp
import engineio.payload
import requests
import socketio

# A pod answers a poll with all that waits; by default this library takes 16 packets at most and
# ends the session when a burst brings more.
engineio.payload.Payload.max_decode_packets = 10000

TRANSPORTS = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}
clients = []
seconds = 20


class Complaints(logging.Handler):
    """What the client library logs as warning or error is a complaint of that client."""

    def __init__(self, errors):
        super().__init__(logging.WARNING)
        self.errors = errors

    def emit(self, record):
        self.errors.append(record.getMessage()[:300])


class Client:
    def __init__(self, wish):
        self.name = wish["name"]
        self.url = wish.get("url")
        self.transport = wish["transport"]
        self.rooms = wish["rooms"]
        self.received = []
        self.errors = []
        self.pod = None
        self.closing = False
        self.logger = logging.Logger(self.name)
        self.logger.addHandler(Complaints(self.errors))

    def listen(self):
        self.sio.on("said", self.on_said)
        self.sio.on("hello", self.on_hello)
        self.sio.on("ask", self.on_ask)
        self.sio.on("connect_error", self.on_connect_error)
        self.sio.on("disconnect", self.on_disconnect)

    def on_said(self, line):
        self.received.append([line["room"], line["number"]])

    def on_ask(self, data):
        return self.name, data

    def on_hello(self, about):
        self.pod = about["pod"]

    def on_connect_error(self, data=None):
        self.errors.append(f"connect error: {data}")

    def on_disconnect(self, *reason):
        if not self.closing:
            self.errors.append(f"disconnected: {' '.join(map(str, reason))}")

    def about(self):
        eio = self.sio.eio
        return {
            "connected": bool(self.sio.connected),
            "pod": self.pod,
            "transport": eio.transport() if eio.state == "connected" else None,
            "sid": self.sio.get_sid() if self.sio.connected else None,
        }

    def lines(self, each):
        for i in range(1, each + 1):
            number = f"{self.name}:{i}"
            for room in self.rooms:
                yield {"room": room, "number": number, "text": f"line {number}"}

    @staticmethod
    def check(answer):
        if answer.get("refused"):
            raise RuntimeError(f"the pod refused a line: {answer['refused']}")

    def echo_data(self):
        return {"text": f"héllo {self.name}", "bytes": bytes([0, 1, 254, 255])}


class AsyncClient(Client):
    async def open(self, url):
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.sio = socketio.AsyncClient(
            reconnection=False,
            http_session=self.http,
            logger=self.logger,
            engineio_logger=self.logger,
        )
        self.listen()
        await self.sio.connect(
            url,
            auth={"name": self.name},
            transports=TRANSPORTS[self.transport],
            wait_timeout=seconds,
        )
        for room in self.rooms:
            self.pod = (await self.sio.call("join", {"room": room}, timeout=seconds))["pod"]

    async def say(self, each, sent):
        for line in self.lines(each):
            self.check(await self.sio.call("say", line, timeout=seconds))
            sent.append([line["room"], line["number"]])

    async def echo(self):
        data = self.echo_data()
        if await self.sio.call("echo", data, timeout=seconds) != data:
            raise RuntimeError("the echo differs")

    async def call(self, event, data):
        return await self.sio.call(event, data, timeout=seconds)

    async def close(self):
        self.closing = True
        await self.sio.disconnect()
        await self.http.close()


def in_order(engine):
    """The synchronous library gives each message a thread of its own: the bytes of a binary event may then
    overtake the event, and both are gone. Here the reader handles each itself."""
    trigger = engine._trigger_event
    engine._trigger_event = lambda event, *words, run_async=False, **more: trigger(
        event, *words, run_async=run_async and event != "message", **more
    )


class SyncClient(Client):
    """Each step of it runs in a thread of the pool."""

    pool = concurrent.futures.ThreadPoolExecutor(64)

    async def in_thread(self, what, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.pool, what, *arguments)

    def open_now(self, url):
        http_session = requests.Session()
        http_session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        self.sio = socketio.Client(
            reconnection=False,
            http_session=http_session,
            logger=self.logger,
            engineio_logger=self.logger,
            handle_sigint=False,
        )
        in_order(self.sio.eio)
        self.listen()
        self.sio.connect(
            url,
            auth={"name": self.name},
            transports=TRANSPORTS[self.transport],
            wait_timeout=seconds,
        )
        for room in self.rooms:
            self.pod = self.sio.call("join", {"room": room}, timeout=seconds)["pod"]

    def say_now(self, each, sent):
        for line in self.lines(each):
            self.check(self.sio.call("say", line, timeout=seconds))
            sent.append([line["room"], line["number"]])

    def echo_now(self):
        data = self.echo_data()
        if self.sio.call("echo", data, timeout=seconds) != data:
            raise RuntimeError("the echo differs")

    def close_now(self):
        self.closing = True
        self.sio.disconnect()

    async def open(self, url):
        await self.in_thread(self.open_now, url)

    async def say(self, each, sent):
        await self.in_thread(self.say_now, each, sent)

    async def echo(self):
        await self.in_thread(self.echo_now)

    async def call(self, event, data):
        return await self.in_thread(lambda: self.sio.call(event, data, timeout=seconds))

    async def close(self):
        await self.in_thread(self.close_now)


def make(wish, turn):
    kind = wish.get("kind") or ("sync" if turn % 2 else "async")
    return SyncClient(wish) if kind == "sync" else AsyncClient(wish)


def tell(answer):
    print(json.dumps(answer), flush=True)


async def everybody(what):
    bad = []

    async def one(client):
        try:
            await what(client)
        except Exception as error:  # whatever it is, it is this client's complaint
            client.errors.append(f"{type(error).__name__}: {error}"[:300])
            bad.append(client.name)

    await asyncio.gather(*map(one, clients))
    return bad


async def obey(order):
    global seconds
    if "clients" in order:
        seconds = order.get("seconds", seconds)
        turns = {}
        for wish in order["clients"]:
            turns[wish["transport"]] = turns.get(wish["transport"], -1) + 1
            clients.append(make(wish, turns[wish["transport"]]))
        await everybody(lambda client: client.open(client.url or order.get("url")))
        tell({"event": "connected", "clients": {c.name: c.about() for c in clients}})
    elif order["do"] == "say":
        sent = []
        failed = await everybody(lambda client: client.say(order["each"], sent))
        tell({"event": "said", "sent": sent, "failed": failed})
    elif order["do"] == "echo":
        bad = await everybody(lambda client: client.echo())
        tell({"event": "echoed", "good": len(clients) - len(bad), "bad": bad})
    elif order["do"] == "call":
        answers = {}

        async def call(client):
            answers[client.name] = await client.call(order["event"], order["data"])

        await everybody(call)
        tell({"event": "answers", "answers": answers})
    elif order["do"] == "report":
        report = {
            c.name: {"connected": bool(c.sio.connected), "received": c.received, "errors": c.errors}
            for c in clients
        }
        tell({"event": "report", "clients": report})
    elif order["do"] == "close":
        await everybody(lambda client: client.close())
        tell({"event": "closed"})


async def main():
    lines = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        order = json.loads(line)
        await obey(order)
        if order.get("do") == "close":
            break


if __name__ == "__main__":
    asyncio.run(main())
