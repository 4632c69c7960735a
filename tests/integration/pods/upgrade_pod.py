"""A flask_pod of any python-socketio version that calls in every form that applications use, on request.

    POST /do  {"op": "send", "calls": [{"kind": K, "number": N, "to": R | [R, …] | null, "skip": S | null}, …]}
                      emits `got` in the form K (FORMS below) with the number in it
              {"op": "ask", "sid": S, "number": N}         emits `ask` with a callback; answers what it was given
              {"op": "disconnect" | "enter" | "leave", "sid": S, "room": R} · {"op": "close_room", "room": R}
"""
import threading

from flask import jsonify, request
from flask_pod import app, socketio

FORMS = {
    "text": lambda number: number,
    "dict": lambda number: {"number": number, "list": [1, [2.5, None]], "é": "\u20ac\u2028"},
    "list": lambda number: [number, 1],
    "list_of_one": lambda number: [number],
    "arguments": lambda number: (number, {"a": [1]}),
    "bytes": lambda number: number.encode(),
    "bytes_within": lambda number: {"number": number, "bytes": [b"\x00\xff", {"more": b""}]},
    "bytes_among_arguments": lambda number: (number, b"\x00\xff"),
}


def ask(sid, data):
    answers = []
    came = threading.Event()

    def on_answer(*values):
        answers.extend(values)
        came.set()

    socketio.server.emit("ask", data, to=sid, callback=on_answer)
    return answers if came.wait(10) else None


@app.post("/do")
def post_do():
    order = request.get_json()
    server = socketio.server
    op, sid, room = order["op"], order.get("sid"), order.get("room")
    answer = None
    if op == "send":
        for call in order["calls"]:
            server.emit("got", FORMS[call["kind"]](call["number"]), to=call["to"], skip_sid=call.get("skip"))
    elif op == "ask":
        answer = ask(sid, order["number"])
    elif op == "disconnect":
        server.disconnect(sid, namespace="/")
    elif op == "close_room":
        server.close_room(room, namespace="/")
    else:
        {"enter": server.enter_room, "leave": server.leave_room}[op](sid, room, namespace="/")
    return jsonify(answer=answer)
