"""python-engineio under Werkzeug's threads, every message echoed: the suite of engine.io-protocol, on Python.

    python engine_io_python.py PORT
"""
import sys

import engineio
from werkzeug.serving import run_simple

server = engineio.Server(async_mode="threading", cors_allowed_origins="*", ping_interval=0.3, ping_timeout=0.2,
                         max_http_buffer_size=1_000_000)


@server.on("message")
def echo(sid, data):
    server.send(sid, data)


run_simple("127.0.0.1", int(sys.argv[1]), engineio.WSGIApp(server), threaded=True)
