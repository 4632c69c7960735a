"""The demo's pod: a small chat on Flask-SocketIO.

An application as anybody would write it.  The one line that makes it scale is `message_queue`,
which names the broker where it would otherwise name a Redis:

    browser ── sidrail-proxy ──▶ this pod ── emit(to=room) ──▶ sidrail-broker ──▶ every other pod

A pod knows only its own visitors.  Who else is in a room it tells the others, and hears from
them, through the room itself: every few seconds, and whenever it changes, each pod emits the
names of its own members; the page puts the lists of all pods together.  A pod that dies is
forgotten by the page when its list is no longer repeated.

Settings (environment): DEMO_POD, DEMO_MESSAGE_QUEUE, DEMO_CLIENT_LIBRARY (the folder of
socket.io-client/dist), DEMO_STATUS_PORTS ("proxy,broker").
"""

import os
import threading

import flask
from flask_socketio import SocketIO, emit, join_room, leave_room

POD = os.environ.get("DEMO_POD", "pod")
CLIENT_LIBRARY = os.environ.get("DEMO_CLIENT_LIBRARY", "")
STATUS_PORTS = os.environ.get("DEMO_STATUS_PORTS", ",").split(",")
ROLL_CALL_SECONDS = 4
TEXT_MAX = 500
NAME_MAX = 40
ROOMS_MAX = 8

app = flask.Flask(__name__)
socketio = SocketIO(
    app,
    async_mode="threading",
    message_queue=os.environ.get("DEMO_MESSAGE_QUEUE"),
)

# Visitors of this pod: Socket.IO sid -> {"name", "rooms"}.
visitors = {}
visitors_lock = threading.Lock()
roll_call_started = threading.Event()


def clean(text, longest):
    return str(text).strip()[:longest]


def room_of(data):
    return clean(data.get("room", ""), NAME_MAX) if isinstance(data, dict) else ""


def announce(room):
    """Tells a room which of its members are on this pod."""
    with visitors_lock:
        members = [
            {"id": sid, "name": visitor["name"]}
            for sid, visitor in visitors.items()
            if room in visitor["rooms"]
        ]
    socketio.emit("members", {"pod": POD, "room": room, "members": members}, to=room)


def call_rolls():
    while True:
        socketio.sleep(ROLL_CALL_SECONDS)
        with visitors_lock:
            rooms = {room for visitor in visitors.values() for room in visitor["rooms"]}
        for room in sorted(rooms):
            announce(room)


@app.get("/")
def page():
    return flask.send_from_directory(app.static_folder, "index.html", max_age=0)


@app.get("/client/<path:name>")
def client_library(name):
    return flask.send_from_directory(CLIENT_LIBRARY, name)


@app.get("/healthz")
def healthz():
    return {"pod": POD}


@socketio.on("connect")
def on_connect(auth=None):
    name = clean((auth or {}).get("name", ""), NAME_MAX) if isinstance(auth, dict) else ""
    with visitors_lock:
        visitors[flask.request.sid] = {"name": name or "somebody", "rooms": set()}
    if not roll_call_started.is_set():
        roll_call_started.set()
        socketio.start_background_task(call_rolls)
    emit("hello", {"pod": POD, "status_ports": STATUS_PORTS})


@socketio.on("disconnect")
def on_disconnect(*_reason):
    with visitors_lock:
        visitor = visitors.pop(flask.request.sid, None)
    for room in visitor["rooms"] if visitor else ():
        announce(room)


@socketio.on("join")
def on_join(data):
    room = room_of(data)
    with visitors_lock:
        visitor = visitors.get(flask.request.sid)
        if not visitor or not room or len(visitor["rooms"]) >= ROOMS_MAX:
            return {"pod": POD, "refused": "no such visitor, no name, or too many rooms"}
        visitor["rooms"].add(room)
    join_room(room)
    announce(room)
    return {"pod": POD}


@socketio.on("leave")
def on_leave(data):
    room = room_of(data)
    with visitors_lock:
        visitor = visitors.get(flask.request.sid)
        if visitor:
            visitor["rooms"].discard(room)
    leave_room(room)
    announce(room)
    return {"pod": POD}


@socketio.on("say")
def on_say(data):
    """One chat line to everybody in a room, wherever they are connected."""
    sid = flask.request.sid
    room = room_of(data)
    with visitors_lock:
        visitor = visitors.get(sid)
        if not visitor or room not in visitor["rooms"]:
            return {"pod": POD, "refused": "not in that room"}
        name = visitor["name"]
    line = {
        "room": room,
        "from": sid,
        "name": name,
        "pod": POD,
        "text": clean(data.get("text", ""), TEXT_MAX),
        "number": data.get("number"),
    }
    emit("said", line, to=room)
    return {"pod": POD}


@socketio.on("echo")
def on_echo(data):
    return data
