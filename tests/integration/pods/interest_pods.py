"""Pods without a network: Socket.IO servers of this process whose clients are rows in a dict.

    interest_pods.py LOOP MANAGER URL COUNT      LOOP: threading | gevent | asyncio; MANAGER: sidrail | redis

One JSON object a line on standard input, {"id": N, "pod": P, "op": …}; each runs in a thread, a greenlet or a task of its
own, and is answered by {"id": N, "result": …} when it has returned:

    connect                      a new client: its sid              disconnect sid
    enter sid room · leave sid room · close room                    emit room data · emit_to sid data (with a callback: ask)
    shut                         the subscribing connection ends under the pod
    received                     what each client was sent: {sid: [data, …]} · lacks sid data: those that it was not sent
    facts                        greeted, how many messages came from the broker, and how many threads have written to the
                                 subscribing connection, if it has TLS
"""
import json
import os
import sys

LOOP, MANAGER, URL, COUNT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
sys.path += [path for path in os.environ.get("MORE_PATH", "").split(":") if path]
if LOOP == "gevent":
    from gevent import monkey

    monkey.patch_all()

import asyncio  # noqa: E402  (after the patch)
import collections  # noqa: E402
import faulthandler  # noqa: E402
import itertools  # noqa: E402
import queue  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import ssl  # noqa: E402
import threading  # noqa: E402

import socketio  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../broker/python/src"))
from sidrail_socketio import AsyncSidrailManager, SidrailManager  # noqa: E402

faulthandler.register(signal.SIGUSR1)
numbers = itertools.count(1)
writers = collections.defaultdict(set)  # threads, by TLS connection


def note_writers(name):
    method = getattr(ssl.SSLSocket, name)

    def noted(self, *words, **options):
        writers[id(self)].add(threading.get_ident())
        return method(self, *words, **options)

    setattr(ssl.SSLSocket, name, noted)


note_writers("send")
note_writers("sendall")
saying = threading.Lock()


class Pod:
    """One Socket.IO server."""

    def __init__(self):
        is_async = LOOP == "asyncio"
        if MANAGER == "sidrail":
            kind = AsyncSidrailManager if is_async else SidrailManager
        else:
            kind = socketio.AsyncRedisManager if is_async else socketio.RedisManager
        self.manager = kind(URL, channel="flask-socketio")
        if is_async:
            self.server = socketio.AsyncServer(async_mode="asgi", client_manager=self.manager)
        else:
            self.server = socketio.Server(async_mode=LOOP, client_manager=self.manager)
        self.sids = {}  # by the transport's sid
        self.sent = {}  # by sid
        self.came = 0
        self._watch()
        self.manager.initialize()

    def _watch(self):
        def take(eio_sid, data):
            text = getattr(data, "data", data)
            if not isinstance(text, str) or "[" not in text:
                return
            self.sent[self.sids[eio_sid]].append(json.loads(text[text.index("["):])[1])

        async def take_async(eio_sid, data, *_, **__):
            take(eio_sid, data)

        def take_sync(eio_sid, data, *_, **__):
            take(eio_sid, data)

        self.server.eio.send = self.server.eio.send_packet = take_async if LOOP == "asyncio" else take_sync
        listen = self.manager._listen
        if LOOP == "asyncio":
            async def counted():
                async for message in listen():
                    self.came += 1
                    yield message
        else:
            def counted():
                for message in listen():
                    self.came += 1
                    yield message
        self.manager._listen = counted

    def connected(self, eio_sid, sid):
        self.sids[eio_sid] = sid
        self.sent[sid] = []
        return sid

    def calls(self, order):
        """What to call of the server or the manager for `order`: function, arguments, keywords."""
        op, sid, room = order["op"], order.get("sid"), order.get("room")
        server = self.server
        return {
            "enter": lambda: server.enter_room(sid, room),
            "leave": lambda: server.leave_room(sid, room),
            "close": lambda: server.close_room(room),
            "emit": lambda: server.emit("said", order["data"], room=room),
            "emit_to": lambda: server.emit("said", order["data"], room=sid),
            "disconnect": lambda: self.manager.disconnect(sid, namespace="/", ignore_queue=True),
        }[op]()

    def shut(self):
        connection = self.manager._own_pubsub.connection
        sock = getattr(connection, "_sock", None) or connection._writer.get_extra_info("socket")
        if hasattr(sock, "shutdown"):
            sock.shutdown(socket.SHUT_RDWR)
        else:  # asyncio's
            socket.socket(fileno=os.dup(sock.fileno())).shutdown(socket.SHUT_RDWR)

    def answer(self, order):
        """Of an op that does not wait; NotImplemented: it is none."""
        if order["op"] == "received":
            return {sid: list(sent) for sid, sent in self.sent.items()}
        if order["op"] == "lacks":
            return sorted(set(order["data"]) - set(self.sent[order["sid"]]))
        if order["op"] == "facts":
            pubsub = getattr(self.manager, "_own_pubsub", None)
            sock = getattr(getattr(pubsub, "connection", None), "_sock", None)
            return {"greeted": getattr(self.manager, "is_greeted", False), "came": self.came,
                    "writers": len(writers[id(sock)])}
        if order["op"] == "shut":
            return self.shut()
        return NotImplemented


def say(order, **answer):
    with saying:
        sys.stdout.write(json.dumps({"id": order["id"], **answer}) + "\n")
        sys.stdout.flush()


def run(pods, order):
    try:
        pod = pods[order["pod"]]
        result = pod.answer(order)
        if result is NotImplemented and order["op"] == "connect":
            eio_sid = f"eio{next(numbers)}"
            result = pod.connected(eio_sid, pod.manager.connect(eio_sid, "/"))
        elif result is NotImplemented:
            pod.calls(order)
            result = None
        say(order, result=result)
    except Exception as error:
        say(order, error=repr(error))


async def run_async(pods, order):
    try:
        pod = pods[order["pod"]]
        result = pod.answer(order)
        if result is NotImplemented and order["op"] == "connect":
            eio_sid = f"eio{next(numbers)}"
            sid = pod.manager.connect(eio_sid, "/")
            result = pod.connected(eio_sid, await sid if asyncio.iscoroutine(sid) else sid)
        elif result is NotImplemented:
            called = pod.calls(order)
            if asyncio.iscoroutine(called):
                await called
            result = None
        say(order, result=result)
    except Exception as error:
        say(order, error=repr(error))


async def main_async():
    pods = [Pod() for _ in range(COUNT)]
    loop = asyncio.get_running_loop()
    lines = asyncio.Queue()
    threading.Thread(target=read_lines, args=(lambda line: loop.call_soon_threadsafe(lines.put_nowait, line),),
                     daemon=True).start()
    tasks = set()
    print("ready", flush=True)
    while (line := await lines.get()):
        task = asyncio.create_task(run_async(pods, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def read_lines(put):
    for line in sys.stdin:
        put(line)
    put("")


def main():
    pods = [Pod() for _ in range(COUNT)]
    print("ready", flush=True)
    if LOOP == "gevent":
        from gevent.fileobject import FileObject

        lines = iter(FileObject(0, "r"))
    else:
        lines = iter(sys.stdin)
    work = queue.Queue()

    def serve():
        while True:
            run(pods, work.get())

    for _ in range(24):
        threading.Thread(target=serve, daemon=True).start()
    for line in lines:
        work.put(json.loads(line))


if LOOP == "asyncio":
    asyncio.run(main_async())
else:
    main()
os._exit(0)
