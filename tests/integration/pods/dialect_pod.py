"""One version of python-socketio without a network: publishes calls, and tells what clients would get of payloads.

Reads a pickled list of jobs from stdin, writes the pickled list of their results to stdout:

    ("publish", call)   ─▶ the payload, or None when this version cannot publish the call
    ("receive", payload) ─▶ what it does: packets by client, callbacks, disconnects, rooms, errors

Everything between the payload and the packet is python-socketio's own: its manager, its listening thread, its packets.
"""
import json
import logging
import pickle
import sys

import socketio
from bidict import bidict
from socketio.pubsub_manager import PubSubManager

VERSION = tuple(int(part) for part in sys.argv[1].split("."))
RECEIVER, SENDER = "4" * 32, "9" * 32
CLIENTS = {"/": {"sid-a": ["a", 1, 2.5], "sid-b": ["a", "größe"], "sid-c": [],
                 # of tests/vectors
                 "RemoteSid-_000000AAB": ["room-42", "rööm 😀", 'a"b\\c\n\x00d', 42], "LocalSid_-0000000AAA": [1099511627776, -7]},
           "/chat": {"sid-d": ["a", "b"]}}


class Errors(logging.Handler):
    def __init__(self):
        super().__init__(logging.ERROR)
        self.seen = 0

    def emit(self, record):
        self.seen += "exited unexpectedly" not in record.getMessage()


class Manager(PubSubManager):
    name = "recording"

    def __init__(self):
        super().__init__()
        self.payloads = []
        self.host_id = SENDER

    def initialize(self):
        pass

    def _publish(self, data):  # as the RedisManager of this version does
        self.payloads.append(json.dumps(data).encode() if VERSION >= (5, 14) else pickle.dumps(data))

    def _listen(self):
        yield self.arriving


def make():
    manager = Manager()
    logger = logging.Logger("dialect")
    errors = Errors()
    logger.addHandler(errors)
    server = socketio.Server(client_manager=manager, async_mode="threading", logger=logger, engineio_logger=False)
    manager.set_server(server)
    for namespace, clients in CLIENTS.items():
        rooms = manager.rooms.setdefault(namespace, {})
        for sid, names in clients.items():
            for room in (None, sid, *names):
                rooms.setdefault(room, bidict())[sid] = "eio-" + sid
    return server, manager, errors


def publish(call):
    server, manager, _ = make()
    manager.rooms.clear()  # nobody here: only what is published counts
    method, arguments = call
    try:
        if method == "emit":
            if arguments.pop("asks"):
                arguments["callback"] = print
            manager.emit("ev", **arguments)
        elif method == "callback":
            manager._return_callback(RECEIVER, arguments["sid"], arguments["namespace"], 7, *arguments["args"])
        else:
            getattr(manager, method)(**arguments)
    except (TypeError, ValueError, KeyError):
        return None
    return manager.payloads[-1] if manager.payloads else None


def receive(payload):
    server, manager, errors = make()
    manager.host_id = RECEIVER
    manager.arriving = payload
    done = []

    def send(eio_sid, packet):
        parts = packet.encode() if hasattr(packet, "attachments") else packet.data
        for part in parts if isinstance(parts, list) else [parts]:
            done.append(("packet", eio_sid, bytes(part) if isinstance(part, bytearray) else part))

    server._send_packet = server._send_eio_packet = send
    server.disconnect = lambda sid, namespace=None, **_: done.append(("disconnect", sid, namespace))
    manager.trigger_callback = lambda sid, id, data: done.append(("callback", sid, id, json.dumps(list(data))))
    manager._thread()
    rooms = {namespace: sorted((repr(room), sorted(who)) for room, who in rooms.items())
             for namespace, rooms in manager.rooms.items()}
    # who is asked for an answer, and with what
    asked = sorted((sid, [each.args for each in ids.values() if hasattr(each, "args")])
                   for sid, ids in manager.callbacks.items())
    asked = json.dumps(asked)
    return {"done": done, "rooms": rooms, "asked": asked, "errors": errors.seen}


def main():
    jobs = pickle.load(sys.stdin.buffer)
    pickle.dump([publish(what) if kind == "publish" else receive(what) for kind, what in jobs], sys.stdout.buffer)


main()
