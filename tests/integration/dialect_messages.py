"""Messages as pods of each dialect publish them."""
import json
import pickle

HOST = "1234567890abcdef" * 2
PICKLE, JSON14, JSON15 = "pickle", "json14", "json15"


def message(dialect, *args, host_id=HOST, room="r"):
    """emit("ev", *args) as pods of this dialect publish it."""
    data = list(args) if dialect == JSON15 else args[0] if len(args) == 1 else tuple(args)
    call = {"method": "emit", "event": "ev", "data": data, "namespace": "/", "room": room, "skip_sid": None,
            "callback": None}
    if host_id:
        call["host_id"] = host_id
    return pickle.dumps(call) if dialect == PICKLE else json.dumps(call).encode()


def seen(payload):
    """(dialect that it can only be, or None; the call's data)"""
    if payload[:1] == b"\x80":
        return PICKLE, pickle.loads(payload)["data"]
    data = json.loads(payload)["data"]
    return (JSON15 if isinstance(data, list) else JSON14), data
