"""A flask_pod that also does what a server may do to other pods' clients, on request.

    POST /do  {"op": "emit", "rooms": R | [R, …] | null, "first": N, "count": N, "skip_sid": S | [S, …] | null,
               "bytes": N}
                      emits `said` numbered "POD:N", with N bytes of binary data if given; room lists are one emit to
                      several rooms
              {"op": "each", "rooms": [R, …], "first": N, "count": N}     the same, room after room, by turns
              {"op": "ask", "sid": S, "data": D}          emits `ask` with a callback; answers what it was given
              {"op": "disconnect", "sid": S} · {"op": "close_room", "room": R}
              {"op": "enter" | "leave", "sid": S, "room": R}
"""
import threading

from flask import jsonify, request
from flask_pod import NAME, app, socketio


def emit_lines(rooms, order):
    for number in range(order.get("first", 0), order.get("first", 0) + order.get("count", 1)):
        for room in rooms:
            data = {"pod": NAME, "room": room, "number": f"{NAME}:{number}"}
            if order.get("bytes"):
                data["filler"] = bytes(i % 256 for i in range(order["bytes"]))
            socketio.emit("said", data, to=room, skip_sid=order.get("skip_sid"))


def ask(sid, data):
    answers = []
    came = threading.Event()

    def on_answer(*values):
        answers.extend(values)
        came.set()

    socketio.server.emit("ask", data, to=sid, callback=on_answer)
    return answers if came.wait(15) else None


@app.post("/do")
def post_do():
    order = request.get_json()
    server = socketio.server
    op, sid, room = order["op"], order.get("sid"), order.get("room")
    answer = None
    if op == "emit":
        emit_lines([order["rooms"]], order)
    elif op == "each":
        emit_lines(order["rooms"], order)
    elif op == "ask":
        answer = ask(sid, order["data"])
    elif op == "disconnect":
        server.disconnect(sid, namespace="/")
    elif op == "close_room":
        socketio.close_room(room, namespace="/")
    elif op == "enter":
        server.enter_room(sid, room, namespace="/")
    elif op == "leave":
        server.leave_room(sid, room, namespace="/")
    else:
        return jsonify(error=f"no such op: {op}"), 400
    return jsonify(answer=answer)
