"""A bare python-engineio server under one of the servers that read paths in their own ways, for tests of paths.

    path_pod.py werkzeug | eventlet | gevent | aiohttp      serves by itself on POD_PORT
    gunicorn path_pod:wsgi, gunicorn -k asgi path_pod:asgi   the other two

GET /pod is answered 200; every path that is not Engine.IO 404.
"""
import os
import sys

KIND = sys.argv[1] if __name__ == "__main__" else ""
if KIND == "eventlet":
    import eventlet

    eventlet.monkey_patch()
if KIND == "gevent":
    from gevent import monkey

    monkey.patch_all()
import engineio

PORT = int(os.environ["POD_PORT"])


def other_wsgi(environ, start_response):
    start_response("200 OK" if environ["PATH_INFO"] == "/pod" else "404 Not Found", [("Content-Type", "text/plain")])
    return [b"{}"]


async def other_asgi(scope, receive, send):
    if scope["type"] == "http":
        status = 200 if scope["path"] == "/pod" else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def make_wsgi(mode):
    return engineio.WSGIApp(engineio.Server(async_mode=mode, cors_allowed_origins="*"), other_wsgi, engineio_path="socket.io")


wsgi = make_wsgi(KIND if KIND in ("eventlet", "gevent") else "threading")
asgi = engineio.ASGIApp(engineio.AsyncServer(async_mode="asgi", cors_allowed_origins="*"), other_asgi,
                        engineio_path="socket.io")


def serve_werkzeug():
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", PORT, wsgi, threaded=True)


def serve_eventlet():
    eventlet.wsgi.server(eventlet.listen(("127.0.0.1", PORT)), wsgi)


def serve_gevent():
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", PORT), wsgi).serve_forever()


def serve_aiohttp():
    from aiohttp import web

    async def pod(_request):
        return web.Response(text="{}")

    app = web.Application()
    engineio.AsyncServer(async_mode="aiohttp", cors_allowed_origins="*").attach(app, "socket.io")
    app.router.add_get("/pod", pod)
    web.run_app(app, host="127.0.0.1", port=PORT)


if __name__ == "__main__":
    globals()[f"serve_{KIND}"]()
