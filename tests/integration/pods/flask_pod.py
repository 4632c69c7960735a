"""A Flask-SocketIO pod for tests; runs with python-socketio 5.7 and with the current one.

Every kind of pod answers the same. Events of a client, all of them acknowledged:

    join {room}            enters the room                          -> {pod, rooms}
    leave {room}           leaves it                                -> {pod, rooms}
    say {room, number}     emits `said` to the room                 -> {pod}
    echo DATA              emits `echoed` to the sender alone       -> DATA
    whoami                                                          -> {pod, engine_sid, socket_id, transport}

    said {pod, room, number, filler}: what the clients of a room receive.

Plain HTTP:

    GET /pod                                         {pod, pid, sessions, connects}
    GET /emit?room=R&first=N&count=N&namespace=/&size=N   emits `said` without a client's doing

POD_NAME, POD_QUEUE (a redis:// URL; absent: no backplane), POD_ASYNC_MODE (threading, gevent, eventlet), POD_SILENT (says
no hello) and POD_MANAGER=sidrail (with its client manager) come from the environment. Run as a program it serves by the
mode's own server instead of gunicorn.
"""
import os

ASYNC_MODE = os.environ.get("POD_ASYNC_MODE", "threading")
if __name__ == "__main__" and ASYNC_MODE != "threading":
    from importlib import import_module

    patch = import_module("eventlet").monkey_patch if ASYNC_MODE == "eventlet" else import_module(
        "gevent.monkey").patch_all
    patch()
import sys
import threading

from flask import Flask, jsonify, request
from flask_socketio import SocketIO, emit, join_room, leave_room, rooms

NAME = os.environ["POD_NAME"]
CHANNEL = os.environ.get("POD_CHANNEL", "flask-socketio")


def queue():
    """How the pod reaches the others: by a client manager of Sidrail's, or as Flask-SocketIO does it."""
    url = os.environ.get("POD_QUEUE")
    if os.environ.get("POD_MANAGER") != "sidrail":
        return {"message_queue": url, "channel": CHANNEL}
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../broker/python/src"))
    from sidrail_socketio import SidrailManager

    return {"client_manager": SidrailManager(url, channel=CHANNEL)}


app = Flask(__name__)
socketio = SocketIO(
    app,
    async_mode=ASYNC_MODE,
    cors_allowed_origins="*",
    **queue(),
    ping_interval=int(os.environ.get("POD_PING_INTERVAL", "25")),
    ping_timeout=int(os.environ.get("POD_PING_TIMEOUT", "20")),
)
lock = threading.Lock()
counts = {"sessions": 0, "connects": 0}


def said(room, number, namespace="/", size=0):
    data = {"pod": NAME, "room": room, "number": number, "filler": "x" * size}
    socketio.emit("said", data, to=room, namespace=namespace)


def register(namespace):
    @socketio.on("connect", namespace=namespace)
    def on_connect():
        with lock:
            counts["sessions"] += 1
            counts["connects"] += 1
        if not os.environ.get("POD_SILENT"):
            emit("hello", {"pod": NAME})

    @socketio.on("disconnect", namespace=namespace)
    def on_disconnect(*_reason):
        with lock:
            counts["sessions"] -= 1

    @socketio.on("join", namespace=namespace)
    def on_join(data):
        join_room(data["room"])
        return {"pod": NAME, "rooms": [str(room) for room in rooms()]}

    @socketio.on("leave", namespace=namespace)
    def on_leave(data):
        leave_room(data["room"])
        return {"pod": NAME, "rooms": [str(room) for room in rooms()]}

    @socketio.on("say", namespace=namespace)
    def on_say(data):
        said(data["room"], data["number"], namespace, data.get("size", 0))
        return {"pod": NAME}

    @socketio.on("echo", namespace=namespace)
    def on_echo(data):
        emit("echoed", data)
        return data

    @socketio.on("whoami", namespace=namespace)
    def on_whoami(*_data):
        server = socketio.server
        engine_sid = server.manager.eio_sid_from_sid(request.sid, namespace)
        return {
            "pod": NAME,
            "engine_sid": engine_sid,
            "socket_id": request.sid,
            "transport": server.eio.transport(engine_sid),
        }


for each in ("/", "/admin"):
    register(each)


@app.get("/pod")
def get_pod():
    with lock:
        return jsonify(pod=NAME, pid=os.getpid(), **counts)


@app.get("/emit")
def get_emit():
    first = request.args.get("first", 0, int)
    for number in range(first, first + request.args.get("count", 1, int)):
        said(request.args.get("room") or None, number, request.args.get("namespace", "/"),
             request.args.get("size", 0, int))
    return jsonify(pod=NAME)


if __name__ == "__main__":
    unsafe = {"allow_unsafe_werkzeug": True} if ASYNC_MODE == "threading" else {}
    socketio.run(app, host="127.0.0.1", port=int(os.environ["POD_PORT"]), **unsafe)
