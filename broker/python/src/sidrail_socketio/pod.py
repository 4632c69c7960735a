"""What both client managers are made of: identity, the talk with the broker, forks, and what they need of python-socketio."""
from __future__ import annotations

import importlib.metadata as importlib_metadata
import os
import random
import uuid
import weakref
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from .talk import State, Talk

#: How long enter_room and connect wait for the broker at most; it answers within a second.
JOIN_WITHIN = 2.0
RETRY_FIRST, RETRY_MAX = 0.05, 5.0


def version_of(package: str) -> str:
    try:
        return importlib_metadata.version(package)
    except importlib_metadata.PackageNotFoundError:
        return "of an unknown version"


def check_parts(kind: type, names: Iterable[str]) -> None:
    """Managers change inner methods of python-socketio's: one that lacks any of them is refused when it is imported, not when
    the first message is lost."""
    missing = [name for name in names if not callable(getattr(kind, name, None))]
    if missing:
        raise ImportError(
            f"sidrail-socketio cannot work with python-socketio {version_of('python-socketio')}: "
            f"{kind.__name__} has no {', '.join(missing)}. Install a newer sidrail-socketio, or python-socketio<6"
        )


def dialect_of(module: Any) -> bytes:
    """How the python-socketio of a manager's module writes messages, as the broker names it."""
    if hasattr(module, "pickle"):
        return b"pickle"
    try:
        version = tuple(int(word) for word in version_of("python-socketio").split(".")[:3])
    except ValueError:
        return b"auto"
    return b"json15" if version >= (5, 15, 1) else b"json14"


def text_of(value: Any) -> str:
    """A channel's name, as redis-py gives it with or without decode_responses."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def bytes_of(value: Any) -> bytes:
    """A payload, likewise."""
    return value.encode("utf-8") if isinstance(value, str) else bytes(value)


def spread(retry: float) -> float:
    """How long to wait before a reconnect: pods that lost one broker do not come back in one moment."""
    return random.uniform(retry / 2, retry)


_pods: "weakref.WeakSet[Pod]" = weakref.WeakSet()


def _after_fork() -> None:
    for pod in list(_pods):
        pod._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Pod:
    """A mixin before ``RedisManager`` or ``AsyncRedisManager``."""

    name = "sidrail"
    # of the managers
    host_id: str
    channel: str
    write_only: bool
    rooms: Dict[str, Dict[Any, Any]]
    server: Any
    thread: Any
    redis: Any
    _thread: Callable[[], Any]

    def _begin_pod(self, private_local: bool, make_talk: Callable[[], Talk]) -> None:
        """First of all in ``__init__``."""
        self._private_local = private_local
        self._make_talk = make_talk
        self._is_initialized = False
        self._must_listen = False
        self._begin_process()
        _pods.add(self)

    def _begin_process(self) -> None:
        """State that is of one process; the managers add theirs."""
        self._pid = os.getpid()
        self._talk = self._make_talk()
        self._asks_greeting = True
        self._own_pubsub: Any = None

    def _forked(self) -> None:
        """In a new child: threads, tasks and locks are the parent's, and so is the connection. It is another pod."""
        self.host_id = uuid.uuid4().hex
        self._must_listen = self._is_initialized and not self.write_only
        self._begin_process()

    def _listen_here(self) -> None:
        """Before anything that needs the listener: after a fork it is started again, when the child is used."""
        if self._pid != os.getpid():
            self._forked()  # by something that Python does not see
        if self._must_listen:
            self._must_listen = False
            self._begin_listening()

    def _begin_listening(self) -> None:
        self.thread = self.server.start_background_task(self._thread)

    def initialize(self) -> None:
        self._is_initialized = True
        self._must_listen = False
        super().initialize()  # type: ignore[misc]

    @property
    def is_greeted(self) -> bool:
        """Whether a sidrail-broker is at the other end, now."""
        return self._talk.state is State.GREETED

    @property
    def _greeting(self) -> str:
        return f"{self.channel}.sidrail.{self.host_id}"

    def _names(self) -> List[str]:
        """Channels to subscribe, in one command."""
        return [self._greeting, self.channel] if self._asks_greeting else [self.channel]

    def _members(self) -> List[Tuple[str, object]]:
        """All (namespace, room) that the pod has members in."""
        return [(namespace, room) for namespace, inner in self.rooms.items() for room in inner]

    def _has_room(self, namespace: Any, room: Any) -> bool:
        return room in self.rooms.get(namespace, {})

    def _is_private(self, room: Any, namespace: str) -> bool:
        """Is this the sid of one of the pod's own clients, whose messages need not leave it?"""
        return (
            self._private_local
            and isinstance(room, str)
            and self.is_greeted
            and room in self.rooms.get(namespace, {}).get(None, {})
        )

    def _note_error(self, error: BaseException) -> None:
        if "NOPERM" in str(error) or "permission" in str(error).lower():
            self._asks_greeting = False  # a Redis that allows the channel alone


def payload_of(pod: Pod, response: Any) -> Optional[Tuple[Any]]:
    """(payload,) of a message, (None,) of one on another channel."""
    return (response["data"] if text_of(response["channel"]) == pod.channel else None,)
