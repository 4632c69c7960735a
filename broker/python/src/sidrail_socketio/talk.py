"""What a client manager and the broker say to each other: states and words, no sockets, no threads.

Everything goes over the subscribing connection. The manager says ``SIDRAIL …``; the broker answers with messages on
the greeting's channel, ``<channel>.sidrail.<host_id>``::

    DOWN ─subscribed the greeting─▶ CONNECTING ─subscribed the channel, no greeting─▶ PLAIN     (Redis)
                                        │ hello 1 CONNECTION
                                        ▼
                                     GREETED    SIDRAIL HELLO, ROOMS; then JOIN, LEAVE, SEEN
                                                joined GENERATION SEQUENCE: what is published from now on comes
                                                again: send all rooms again

The caller holds a lock over each call, and sends the commands that it gets in the order in which it got them.
"""
from __future__ import annotations

import enum
import time
from typing import Callable, Iterable, List, Optional, Tuple

from .rooms import canonical

PROTOCOL = b"1"
PAIRS_AT_ONCE = 500
SEEN_AT_ONCE = 500
CONNECTIONS_MAX = 8
SEEN_EVERY = 1.0
#: A greeting that was lost is expected back within this: joins wait for it.
RETURN_WITHIN = 2.0

Command = Tuple[bytes, ...]
Number = Tuple[int, int]


class State(enum.Enum):
    """Of the subscribing connection."""

    DOWN = "down"
    CONNECTING = "connecting"
    PLAIN = "plain"
    GREETED = "greeted"


class Change:
    """A room that the pod has begun or ceased to need."""

    __slots__ = ("is_join", "namespace", "room", "number")

    def __init__(self, is_join: bool, namespace: bytes, room: bytes) -> None:
        self.is_join = is_join
        self.namespace = namespace
        self.room = room
        #: Generation and sequence under which the broker was told; None: not yet.
        self.number: Optional[Number] = None


class Talk:
    """One pod's side. ``rooms`` gives all (namespace, room) that the pod has members in; ``tells_rooms`` False: the
    pod cannot wait for joins, and wants everything; ``skips_own``: it ignores what comes back of its own; ``dialect``:
    in which it reads messages."""

    def __init__(
        self,
        rooms: Callable[[], Iterable[Tuple[str, object]]],
        tells_rooms: bool = True,
        skips_own: bool = True,
        dialect: bytes = b"auto",
    ) -> None:
        self._rooms = rooms
        self._tells_rooms = tells_rooms
        self._skips_own = skips_own
        self._dialect = dialect
        self.state = State.DOWN
        #: Connections on which the pod may be waited for, the newest first, and how many messages of each it has had.
        self._connections: List[Tuple[bytes, int]] = []
        self._is_heard = False
        self._seen = 0
        self._told_seen = 0
        self._told_at = 0.0
        self._generation = 0
        self._sequence = 0
        self._joined: Number = (0, 0)
        self._pending: List[Change] = []
        self._newest: Optional[Change] = None
        self._wants_all = not tells_rooms
        self._lost_at: Optional[float] = None  # the broker's greeting

    # ── the connection ──

    def begin(self) -> None:
        """The greeting's subscription is confirmed, or about to be asked for."""
        self.state = State.CONNECTING

    def confirm(self) -> None:
        """The channel's subscription is confirmed: the broker's greeting came before it."""
        if self.state is State.CONNECTING:
            self.state = State.PLAIN
            self._lost_at = None
            self._forget()

    def end(self) -> None:
        """The connection is lost."""
        if self.state is State.GREETED:
            self._lost_at = time.monotonic()
        self.state = State.DOWN
        if not self._returns():
            self._forget()

    def _returns(self) -> bool:
        """Is a broker expected back?"""
        return self._lost_at is not None and time.monotonic() - self._lost_at < RETURN_WITHIN

    def _forget(self) -> None:
        self._pending.clear()
        self._newest = None

    # ── what the broker says ──

    def hear(self, payload: bytes) -> List[Command]:
        """Takes a message on the greeting's channel; returns what to say."""
        words = payload.split()
        if words[:2] == [b"hello", PROTOCOL] and len(words) >= 3:
            return self._greet(words[2])
        if words[:1] == [b"joined"] and len(words) >= 3 and words[1].isdigit() and words[2].isdigit():
            self._joined = max(self._joined, (int(words[1]), int(words[2])))
            self._is_heard = True
        elif words[:1] == [b"again"] and self.state is State.GREETED:
            return self._snapshot()
        return []

    def _greet(self, connection: bytes) -> List[Command]:
        if self._connections:
            self._connections[0] = (self._connections[0][0], self._seen)
        # When nothing came on a connection it is not known whether the broker heard the HELLO there.
        known = self._connections[: 1 if self._is_heard else CONNECTIONS_MAX]
        own = b"own" if self._skips_own else b"echo"
        words = (word for token, seen in known for word in (token, b"%d" % seen))
        hello = (b"SIDRAIL", b"HELLO", PROTOCOL, own, self._dialect, *words)
        self._connections = [(connection, 0), *known]
        self._is_heard = False
        self.state = State.GREETED
        self._lost_at = None
        self._seen = self._told_seen = 0
        return [hello, *self._snapshot()]

    def _snapshot(self) -> List[Command]:
        self._generation += 1
        self._sequence = 0
        for change in self._pending:
            change.number = (self._generation, 0)
        self._pending.clear()
        if not self._tells_rooms:
            return [(b"SIDRAIL", b"ALL")]
        pairs: List[Tuple[bytes, bytes]] = []
        for namespace, room in self._rooms():
            name = canonical(room)
            if name is None:
                self._wants_all = True
                return [(b"SIDRAIL", b"ALL")]
            pairs.append((namespace.encode("utf-8", "surrogatepass"), name))
        self._wants_all = False
        chunks = [pairs[i : i + PAIRS_AT_ONCE] for i in range(0, len(pairs), PAIRS_AT_ONCE)] or [[]]
        head = (b"SIDRAIL", b"ROOMS", b"%d" % self._generation)
        return [
            (*head, b"0" if chunk is chunks[-1] else b"1", *(word for pair in chunk for word in pair))
            for chunk in chunks
        ]

    # ── rooms ──

    def note(self, is_join: bool, namespace: str, room: object) -> None:
        """The pod has its first member in the room, or no more."""
        waits = self.state in (State.CONNECTING, State.GREETED) or (self.state is State.DOWN and self._returns())
        if not waits or not self._tells_rooms:
            return
        name = canonical(room)
        if name is None:
            name = b"?"  # flush() says ALL
        change = Change(is_join, namespace.encode("utf-8", "surrogatepass"), name)
        self._pending.append(change)
        if is_join:
            self._newest = change

    def flush_is_due(self) -> bool:
        """Has flush() something to say?"""
        return self.state is State.GREETED and bool(self._pending)

    def flush(self) -> List[Command]:
        """What to say of the changes that were noted."""
        if self.state is not State.GREETED or not self._pending:
            return []
        if self._wants_all or any(change.room == b"?" for change in self._pending):
            said: List[Command] = [] if self._wants_all else [(b"SIDRAIL", b"ALL")]
            self._wants_all = True
            self._pending.clear()
            self._newest = None
            return said
        commands: List[Command] = []
        run: List[Change] = []
        for change in self._pending:
            if run and (run[0].is_join is not change.is_join or len(run) == PAIRS_AT_ONCE):
                commands.append(self._tell(run))
                run = []
            run.append(change)
        commands.append(self._tell(run))
        self._pending.clear()
        return commands

    def _tell(self, run: List[Change]) -> Command:
        self._sequence += 1
        for change in run:
            change.number = (self._generation, self._sequence)
        word = b"JOIN" if run[0].is_join else b"LEAVE"
        words = tuple(word for change in run for word in (change.namespace, change.room))
        return (b"SIDRAIL", word, b"%d" % self._generation, b"%d" % self._sequence, *words)

    def is_joined(self) -> bool:
        """Has everything that was noted so far been joined, or is there nobody to join it?"""
        newest = self._newest
        if newest is None or self.state is State.PLAIN or (self.state is State.DOWN and not self._returns()):
            return True
        if newest.number is None or newest.number > self._joined:
            return False
        self._newest = None
        return True

    # ── positions ──

    def count(self) -> List[Command]:
        """A message that is not the greeting's is going to be handled; returns what to say."""
        self._seen += 1
        self._is_heard = True
        if self.state is not State.GREETED:
            return []
        now = time.monotonic()
        if self._seen - self._told_seen < SEEN_AT_ONCE and now - self._told_at < SEEN_EVERY:
            return []
        self._told_seen, self._told_at = self._seen, now
        return [(b"SIDRAIL", b"SEEN", b"%d" % self._seen)]
