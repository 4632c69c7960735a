"""Waiting for a connection and for other threads at once."""
from __future__ import annotations

import selectors
import socket
from typing import Any, Optional


class Waiter:
    """What the listener waits with: until its connection can be read (or written), another thread calls ``wake``, or the
    time is over. gevent and eventlet replace what this stands on when they patch."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)
        self._selector: Optional[selectors.BaseSelector] = None
        self._watched: Any = None
        self._events = 0

    def wake(self) -> None:
        """From any thread: ``wait`` returns, or the next one does."""
        try:
            self._outer.send(b"w")
        except OSError:
            pass  # full: it wakes anyway; closed: there is a new one

    def wait(self, sock: Any, wants_write: bool, timeout: Optional[float]) -> None:
        """From the listener's thread."""
        self._watch(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0))
        assert self._selector is not None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._inner:
                try:
                    while len(self._inner.recv(4096)) == 4096:
                        pass
                except OSError:
                    pass

    def _watch(self, sock: Any, events: int) -> None:
        if sock is not self._watched or self._selector is None:
            if self._selector is not None:
                self._selector.close()
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._inner, selectors.EVENT_READ)
            self._selector.register(sock, events)
            self._watched = sock
        elif events != self._events:
            self._selector.modify(sock, events)
        self._events = events

    def close(self) -> None:
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        self._watched = None
        self._inner.close()
        self._outer.close()
