"""Flask-SocketIO under Werkzeug's threads: the suite of socket.io-protocol, on Python. See socket_io_echo.js.

    python flask_socketio_echo.py PORT
"""
import sys

from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading", cors_allowed_origins="*", ping_interval=0.3, ping_timeout=0.2,
                    max_http_buffer_size=1_000_000)


@socketio.on("connect")
@socketio.on("connect", namespace="/custom")
def tell_credentials(auth=None):
    emit("auth", auth or {})


@socketio.on("message")
def message(*words):
    emit("message-back", words)


@socketio.on("message-with-ack")
def message_with_ack(*words):
    return words


socketio.run(app, "127.0.0.1", int(sys.argv[1]), allow_unsafe_werkzeug=True)
