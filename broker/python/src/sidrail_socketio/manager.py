"""The client manager for threads, gevent and eventlet."""
from __future__ import annotations

import collections
import importlib.metadata as importlib_metadata
import os
import threading
import time
import uuid
from typing import Any, Deque, Dict, Iterator, List, Optional, Tuple

import socketio
import socketio.redis_manager
from socketio.pubsub_manager import PubSubManager

from .talk import Command, State, Talk

#: How long enter_room and connect wait for the broker at most; it answers within a second.
JOIN_WITHIN = 2.0
RETRY_FIRST, RETRY_MAX = 0.05, 5.0

#: python-socketio 5.10 and later deliver what they emit to their own clients at once, and ignore what comes back.
_HANDLES_OWN = hasattr(PubSubManager, "_handle_enter_room")
#: python-socketio 5.10 and later change rooms in these; before, enter_room and leave_room did it themselves.
_HAS_BASIC = hasattr(PubSubManager, "basic_enter_room")


def dialect_of(module: Any) -> bytes:
    """How the python-socketio of a manager's module writes messages, as the broker names it."""
    if hasattr(module, "pickle"):
        return b"pickle"
    try:
        words = importlib_metadata.version("python-socketio").split(".")
        version = tuple(int(word) for word in words[:3])
    except (importlib_metadata.PackageNotFoundError, ValueError):
        return b"auto"
    return b"json15" if version >= (5, 15, 1) else b"json14"


def text_of(value: Any) -> str:
    """A channel's name, as redis-py gives it with or without decode_responses."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def bytes_of(value: Any) -> bytes:
    """A payload, likewise."""
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def members(rooms: Dict[str, Dict[Any, Any]]) -> List[Tuple[str, object]]:
    """All (namespace, room) of a manager's ``rooms``."""
    return [(namespace, room) for namespace, inner in rooms.items() for room in inner]


class SidrailManager(socketio.RedisManager):  # type: ignore[misc]
    """``RedisManager`` that tells sidrail-broker which rooms its pod needs; on a plain Redis it is a ``RedisManager``.

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

    name = "sidrail"

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
        self._private_local = private_local
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.RLock())  # over _talk and rooms
        self._sending = threading.Lock()  # taken first: what is said is said in order
        self._talk = Talk(
            lambda: members(self.rooms), skips_own=_HANDLES_OWN, dialect=dialect_of(socketio.redis_manager)
        )
        self._own_pubsub: Any = None
        self._greeted: Tuple[Any, Any] = (None, None)  # connection and socket
        self._responses: Iterator[Any] = iter(())
        self._asks_greeting = True
        self._listener: Optional[int] = None
        self._backlog: Deque[Any] = collections.deque()
        super().__init__(url, channel=channel, write_only=write_only, logger=logger, **options)

    def initialize(self) -> None:
        # A worker that was forked after the manager was made needs an id of its own.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self.host_id = uuid.uuid4().hex
        super().initialize()

    @property
    def is_greeted(self) -> bool:
        """Whether a sidrail-broker is at the other end, now."""
        return self._talk.state is State.GREETED

    # ── rooms ──

    def _change(self, method: Any, sid: Any, namespace: Any, room: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs what changes a room's members, and notes whether the room is needed now."""
        with self._changed:
            was = room in self.rooms.get(namespace, {})
            try:
                return method(sid, namespace, room, *args, **kwargs)
            finally:
                now = room in self.rooms.get(namespace, {})
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
            sid = super().pre_connect(eio_sid, namespace)
            self._settle()
            return sid

    def connect(self, *args: Any, **kwargs: Any) -> Any:
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

    def _is_private(self, room: Any, namespace: str) -> bool:
        return (
            self._private_local
            and isinstance(room, str)
            and self.is_greeted
            and room in self.rooms.get(namespace, {}).get(None, {})
        )

    def emit(self, event: Any, data: Any, namespace: Any = None, room: Any = None, *args: Any, **kwargs: Any) -> Any:
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

    def _say(self, commands: List[Command]) -> None:
        """Over the connection that was greeted; the caller holds _sending. One that is lost is noticed by the listener.

        Not by redis-py's send_command: it connects anew when the connection is lost, under the listener's hands."""
        try:
            for command in commands:
                for piece in self._greeted[0].pack_command(*command):
                    self._greeted[1].sendall(piece)
        except Exception as error:
            self._get_logger().debug("sidrail: not said: %s", error)

    def _say_changes(self) -> None:
        if not self._talk.flush_is_due():
            return
        with self._sending:
            with self._changed:
                commands = self._talk.flush()
            self._say(commands)

    def _take(self, response: Any) -> Optional[Tuple[Any]]:
        """Takes what came; gives (payload,) of a message, (None,) of one on another channel, None for anything else."""
        channel = text_of(response["channel"])
        greeting = f"{self.channel}.sidrail.{self.host_id}"
        if response["type"] == "subscribe":
            with self._changed:
                if channel == greeting:
                    self._talk.begin()
                elif channel == self.channel:
                    self._talk.confirm()
                self._changed.notify_all()
        elif response["type"] != "message":
            return None
        elif channel == greeting:
            with self._sending:
                with self._changed:
                    commands = self._talk.hear(bytes_of(response["data"]))
                    if commands and commands[0][1] == b"HELLO":
                        connection = self._own_pubsub.connection
                        self._greeted = (connection, connection._sock)
                        self._backlog.clear()  # it comes again
                    self._changed.notify_all()
                self._say(commands)
        else:
            return (response["data"] if channel == self.channel else None,)
        return None

    def _read(self) -> Any:
        """The next response, not None."""
        return next(self._responses)

    def _read_until_joined(self) -> None:
        """The listener itself has entered a room: it goes on reading, and keeps what it reads."""
        until = time.monotonic() + JOIN_WITHIN
        try:
            while not self._talk.is_joined() and time.monotonic() < until:
                taken = self._take(self._read())
                if taken is not None:
                    self._backlog.append(taken)
        except Exception as error:
            self._get_logger().debug("sidrail: %s", error)  # the listener sees it again

    def _subscribe(self) -> None:
        if self.redis is None:
            self._redis_connect()
        self._own_pubsub = self.redis.pubsub(ignore_subscribe_messages=False)
        self._backlog.clear()
        with self._changed:
            self._talk.begin()
        names = [self.channel]
        if self._asks_greeting:
            names.insert(0, f"{self.channel}.sidrail.{self.host_id}")
        self._own_pubsub.subscribe(*names)
        self._responses = iter(self._own_pubsub.listen())

    def _listen(self) -> Iterator[Any]:
        self._listener = threading.get_ident()
        retry = RETRY_FIRST
        while True:
            try:
                self._subscribe()
                while True:
                    taken = self._backlog.popleft() if self._backlog else self._take(self._read())
                    retry = RETRY_FIRST
                    if taken is None:
                        continue
                    self._count()
                    if taken[0] is not None:
                        yield taken[0]
            except Exception as error:
                self._lose(error, retry)
                time.sleep(retry)
                retry = min(retry * 2, RETRY_MAX)

    def _count(self) -> None:
        with self._changed:
            commands = self._talk.count()
        # Not waited for: who holds it may wait for this thread to read.
        if commands and self._sending.acquire(False):
            try:
                self._say(commands)
            finally:
                self._sending.release()

    def _lose(self, error: Exception, retry: float) -> None:
        if "NOPERM" in str(error) or "permission" in str(error).lower():
            self._asks_greeting = False  # a Redis that allows the channel alone
        self._get_logger().error("Cannot receive from redis... retrying in %s secs: %s", retry, error)
        with self._changed:
            self._talk.end()
            self._changed.notify_all()
        try:
            self._own_pubsub.close()
        except Exception as closing:
            self._get_logger().debug("sidrail: %s", closing)
