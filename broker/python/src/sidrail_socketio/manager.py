"""The client manager for threads, gevent and eventlet.

One thread, the listener, owns the subscribing connection: it alone reads and writes it (OpenSSL does not allow two at once).
What others have to say they leave in the talk, and wake it::

    enter_room ─▶ note ─▶ wake ─▶ listener: flush ─▶ unsent ─▶ JOIN …
        └───────── waits ◀──────────────────── "joined" ◀──────┘
"""
from __future__ import annotations

import collections
import ssl
import threading
import time
from typing import Any, Deque, Generator, List, Optional, Tuple

import socketio
import socketio.redis_manager
from socketio.pubsub_manager import PubSubManager

from .pod import JOIN_WITHIN, RETRY_FIRST, RETRY_MAX, Pod, bytes_of, check_parts, dialect_of, payload_of, spread, text_of
from .talk import Command, Talk
from .wait import Waiter

check_parts(socketio.RedisManager, ["_listen", "_publish", "_redis_connect", "_get_logger", "_thread", "_handle_emit",
                                    "enter_room", "leave_room", "connect", "disconnect", "close_room"])

#: An idle listener looks so often whether a health check is due.
LOOK_EVERY = 1.0

#: python-socketio 5.10 and later deliver what they emit to their own clients at once, and ignore what comes back.
_HANDLES_OWN = hasattr(PubSubManager, "_handle_enter_room")
#: python-socketio 5.10 and later change rooms in these; before, enter_room and leave_room did it themselves.
_HAS_BASIC = hasattr(PubSubManager, "basic_enter_room")

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class SidrailManager(Pod, socketio.RedisManager):  # type: ignore[misc]
    """``RedisManager`` that reports to sidrail-broker which rooms its pod needs; on a plain Redis it is a ``RedisManager``.

    Behind the broker

    * the pod gets only messages of rooms that its own clients are in;
    * ``enter_room`` returns when the broker has joined the room: what is published from then on comes;
    * an emit to the sid of one of the pod's own clients does not leave the pod;
    * when the subscribing connection is lost, the next one goes on behind the last message that was handled.

    Whenever something is odd the broker gives the pod everything, as Redis would.

    :param private_local: ``False``: emits to the pod's own clients are published all the same. For applications with
                          python-socketio before 5.13 in which other clients enter the room of a sid.

    All other parameters are those of ``RedisManager``.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        channel: str = "socketio",
        write_only: bool = False,
        logger: Any = None,
        *,
        private_local: bool = True,
        **options: Any,
    ) -> None:
        self._begin_pod(
            private_local,
            lambda: Talk(self._members, skips_own=_HANDLES_OWN, dialect=dialect_of(socketio.redis_manager)),
        )
        super().__init__(url, channel=channel, write_only=write_only, logger=logger, **options)

    def _begin_process(self) -> None:
        super()._begin_process()
        self._changed = threading.Condition(threading.RLock())  # over _talk and rooms
        self._waiter: Optional[Waiter] = None  # while there is a listener
        self._listener: Optional[int] = None
        # the listener's own
        self._greeted: Tuple[Any, Any] = (None, None)  # connection and socket
        self._unsent = bytearray()
        self._backlog: Deque[Any] = collections.deque()

    def _listen_here(self) -> None:
        with self._changed:
            super()._listen_here()

    # ── rooms ──

    def _change(self, method: Any, sid: Any, namespace: Any, room: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs what changes a room's members, and notes whether the room is needed now."""
        self._listen_here()
        with self._changed:
            was = self._has_room(namespace, room)
            try:
                return method(sid, namespace, room, *args, **kwargs)
            finally:
                now = self._has_room(namespace, room)
                if was is not now:
                    self._talk.note(now, namespace, room)

    def _settle(self) -> None:
        """Tells the broker what has changed, and waits until what was entered is joined."""
        with self._changed:
            if self._talk.is_joined() and not self._talk.flush_is_due():
                return
        self._say_changes()
        if threading.get_ident() == self._listener:
            self._read_until_joined()
            return
        with self._changed:
            self._changed.wait_for(self._talk.is_joined, JOIN_WITHIN)

    if _HAS_BASIC:

        def basic_enter_room(self, sid: Any, namespace: Any, room: Any, eio_sid: Any = None) -> Any:
            return self._change(super().basic_enter_room, sid, namespace, room, eio_sid=eio_sid)

        def basic_leave_room(self, sid: Any, namespace: Any, room: Any) -> Any:
            return self._change(super().basic_leave_room, sid, namespace, room)

        def enter_room(self, sid: Any, namespace: Any, room: Any, eio_sid: Any = None) -> Any:
            result = super().enter_room(sid, namespace, room, eio_sid=eio_sid)
            self._settle()
            return result

        def leave_room(self, sid: Any, namespace: Any, room: Any) -> Any:
            result = super().leave_room(sid, namespace, room)
            self._say_changes()
            return result

        def _handle_enter_room(self, message: Any) -> None:
            super()._handle_enter_room(message)
            self._say_changes()

        def _handle_leave_room(self, message: Any) -> None:
            super()._handle_leave_room(message)
            self._say_changes()

    else:

        def enter_room(self, sid: Any, namespace: Any, room: Any, eio_sid: Any = None) -> Any:
            result = self._change(super().enter_room, sid, namespace, room, eio_sid=eio_sid)
            if room is not None:  # connect() enters the sid's room next
                self._settle()
            return result

        def leave_room(self, sid: Any, namespace: Any, room: Any) -> Any:
            result = self._change(super().leave_room, sid, namespace, room)
            self._say_changes()
            return result

    if hasattr(PubSubManager, "pre_connect"):

        def pre_connect(self, eio_sid: Any, namespace: Any) -> Any:
            self._listen_here()
            sid = super().pre_connect(eio_sid, namespace)
            self._settle()
            return sid

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        self._listen_here()
        sid = super().connect(*args, **kwargs)
        self._settle()
        return sid

    def disconnect(self, *args: Any, **kwargs: Any) -> Any:
        result = super().disconnect(*args, **kwargs)
        self._say_changes()
        return result

    def close_room(self, *args: Any, **kwargs: Any) -> Any:
        result = super().close_room(*args, **kwargs)
        self._say_changes()
        return result

    # ── emits ──

    def emit(self, event: Any, data: Any, namespace: Any = None, room: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._listen_here()
        namespace = namespace or "/"
        if self._is_private(kwargs.get("to") or room, namespace):
            kwargs["ignore_queue"] = True
        return super().emit(event, data, namespace, room, *args, **kwargs)

    if not _HANDLES_OWN:
        # As later versions do it, so that an emit to a sid does not overtake one to a room that the sid is in.

        def _publish(self, data: Any) -> Any:
            if self.is_greeted and data.get("method") == "emit":
                data = {**data, "sidrail": True}
                super()._handle_emit(data)
            return super()._publish(data)

        def _handle_emit(self, message: Any) -> None:
            if "sidrail" not in message or message.get("host_id") != self.host_id:
                super()._handle_emit(message)

    # ── the connection ──

    def _say_changes(self) -> None:
        if not self._talk.flush_is_due():
            return
        if threading.get_ident() == self._listener:
            self._write()
        elif self._waiter is not None:
            self._waiter.wake()

    def _say(self, commands: List[Command]) -> None:
        for command in commands:
            for piece in self._greeted[0].pack_command(*command):
                self._unsent += piece

    def _write(self) -> None:
        """What there is to say, as far as the socket takes it: the broker may wait for the pod to read.

        Not by redis-py's send_command: it connects again when the connection is lost, to a broker that has not greeted."""
        with self._changed:
            self._say(self._talk.flush())
        connection, sock = self._greeted
        if not self._unsent:
            return
        if self._own_pubsub.connection is not connection or connection._sock is not sock:
            self._unsent.clear()  # the listener notices that it is lost
            return
        timeout = sock.gettimeout()
        # Where redis-py may write its health check, there is nothing half written.
        sock.settimeout(timeout if getattr(connection, "health_check_interval", 0) else 0)
        try:
            while self._unsent:
                sent = sock.send(bytes(self._unsent[:65536]))
                del self._unsent[:sent]
        except _NOT_NOW:
            pass
        except OSError as error:
            self._unsent.clear()
            self._get_logger().debug("sidrail: not said: %s", error)
        finally:
            sock.settimeout(timeout)

    def _take(self, response: Any) -> Optional[Tuple[Any]]:
        """Takes what came; gives (payload,) of a message, (None,) of one on another channel, None for anything else."""
        channel = text_of(response["channel"])
        if response["type"] == "subscribe":
            with self._changed:
                if channel == self._greeting:
                    self._talk.begin()
                elif channel == self.channel:
                    self._talk.confirm()
                self._changed.notify_all()
        elif response["type"] != "message":
            return None
        elif channel == self._greeting:
            with self._changed:
                commands = self._talk.hear(bytes_of(response["data"]))
                if commands and commands[0][1] == b"HELLO":
                    connection = self._own_pubsub.connection
                    self._greeted = (connection, connection._sock)
                    self._unsent.clear()
                    self._backlog.clear()  # it comes again
                self._changed.notify_all()
                self._say(commands)
        else:
            return payload_of(self, response)
        return None

    def _read(self, until: Optional[float] = None) -> Any:
        """The next response; None: it is later than ``until``."""
        pubsub = self._own_pubsub
        while True:
            self._write()
            connection = pubsub.connection
            if connection.can_read(timeout=0):
                response = pubsub.parse_response(block=True)
                response = response and pubsub.handle_message(response)
                if response:
                    return response
                continue  # a health check's answer
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._wait(connection, left)

    def _wait(self, connection: Any, left: Optional[float]) -> None:
        if getattr(connection, "health_check_interval", 0):
            left = LOOK_EVERY if left is None else min(left, LOOK_EVERY)
            self._own_pubsub.check_health()
        assert self._waiter is not None
        self._waiter.wait(connection._sock, bool(self._unsent), left)

    def _read_until_joined(self) -> None:
        """The listener itself has entered a room: it goes on reading, and keeps what it reads."""
        until = time.monotonic() + JOIN_WITHIN
        try:
            while not self._talk.is_joined():
                response = self._read(until)
                if response is None:
                    return
                taken = self._take(response)
                if taken is not None:
                    self._backlog.append(taken)
        except Exception as error:
            self._get_logger().debug("sidrail: %s", error)  # the listener sees it again

    def _subscribe(self) -> None:
        if self.redis is None:
            self._redis_connect()
        redis: Any = self.redis
        self._own_pubsub = redis.pubsub(ignore_subscribe_messages=False)
        self._backlog.clear()
        self._unsent.clear()
        with self._changed:
            self._talk.begin()
        self._own_pubsub.subscribe(*self._names())

    def _listen(self) -> Generator[Any, None, None]:
        self._listener = threading.get_ident()
        self._waiter = Waiter()
        retry = RETRY_FIRST
        while True:
            try:
                self._subscribe()
                while True:
                    taken = self._backlog.popleft() if self._backlog else self._take(self._read())
                    retry = RETRY_FIRST
                    if taken is None:
                        continue
                    with self._changed:
                        self._say(self._talk.count())
                    if taken[0] is not None:
                        yield taken[0]
            except Exception as error:
                delay = spread(retry)
                self._lose(error, delay)
                time.sleep(delay)
                retry = min(retry * 2, RETRY_MAX)

    def _lose(self, error: Exception, delay: float) -> None:
        self._note_error(error)
        self._get_logger().error("Cannot receive from redis... retrying in %.2f secs: %s", delay, error)
        with self._changed:
            self._talk.end()
            self._changed.notify_all()
        try:
            self._own_pubsub.close()
        except Exception as closing:
            self._get_logger().debug("sidrail: %s", closing)
