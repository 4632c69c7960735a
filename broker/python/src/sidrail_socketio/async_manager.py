"""The client manager for asyncio."""
from __future__ import annotations

import asyncio
import collections
import sys
from typing import Any, AsyncGenerator, Deque, List, Optional, Tuple

import socketio

from .pod import JOIN_WITHIN, RETRY_FIRST, RETRY_MAX, Pod, bytes_of, check_parts, dialect_of, payload_of, spread, text_of
from .talk import Command, Talk

#: Below 5.5 it stands on aioredis 1, and this class is an AsyncRedisManager and nothing else.
_TALKS = hasattr(socketio.AsyncRedisManager, "_redis_connect")
#: Below 5.10 enter_room and connect are not coroutines, and so cannot wait: the pod is given everything.
_TELLS_ROOMS = hasattr(socketio.AsyncRedisManager, "basic_enter_room")
_HANDLES_OWN = hasattr(socketio.AsyncRedisManager, "_handle_enter_room")


if _TALKS:
    check_parts(socketio.AsyncRedisManager, ["_listen", "_publish", "_get_logger", "_thread", "_handle_emit", "enter_room",
                                             "leave_room", "connect", "disconnect", "close_room"])


class AsyncSidrailManager(Pod, socketio.AsyncRedisManager):  # type: ignore[misc]
    """``AsyncRedisManager`` that reports to sidrail-broker which rooms its pod needs: see ``SidrailManager``.

    With python-socketio before 5.10, whose ``enter_room`` is not a coroutine and cannot wait for a join, the pod is
    given everything; emits to its own clients stay in the pod all the same, and positions are exact.
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
            lambda: Talk(
                self._members,
                tells_rooms=_TELLS_ROOMS,
                skips_own=_HANDLES_OWN,
                dialect=dialect_of(sys.modules[socketio.AsyncRedisManager.__module__]),
            ),
        )
        super().__init__(url, channel=channel, write_only=write_only, logger=logger, **options)

    def _begin_process(self) -> None:
        super()._begin_process()
        self._sending: Optional[asyncio.Lock] = None
        self._waiting: List["asyncio.Future[None]"] = []
        self._greeted: Tuple[Any, Any] = (None, None)  # connection and stream
        self._responses: Any = None
        self._listener: Optional["asyncio.Task[Any]"] = None
        self._backlog: Deque[Any] = collections.deque()

    def _begin_listening(self) -> None:
        if _TALKS:
            self._redis_connect()  # what there is was made for the parent's loop
        super()._begin_listening()

    # ── rooms ──

    async def _settle(self) -> None:
        """Tells the broker what has changed, and waits until what was entered is joined."""
        if self._talk.is_joined() and not self._talk.flush_is_due():
            return
        await self._say_changes()
        if asyncio.current_task() is self._listener:
            await self._read_until_joined()
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + JOIN_WITHIN
        while not self._talk.is_joined() and loop.time() < until:
            waiter: "asyncio.Future[None]" = loop.create_future()
            self._waiting.append(waiter)
            await asyncio.wait([waiter], timeout=until - loop.time())

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    if _TELLS_ROOMS:

        def basic_enter_room(self, sid: Any, namespace: Any, room: Any, eio_sid: Any = None) -> Any:
            was = self._has_room(namespace, room)
            try:
                return super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
            finally:
                if not was and self._has_room(namespace, room):
                    self._talk.note(True, namespace, room)

        def basic_leave_room(self, sid: Any, namespace: Any, room: Any) -> Any:
            was = self._has_room(namespace, room)
            try:
                return super().basic_leave_room(sid, namespace, room)
            finally:
                if was and not self._has_room(namespace, room):
                    self._talk.note(False, namespace, room)

        async def enter_room(self, sid: Any, namespace: Any, room: Any, eio_sid: Any = None) -> Any:
            result = await super().enter_room(sid, namespace, room, eio_sid=eio_sid)
            await self._settle()
            return result

        async def leave_room(self, sid: Any, namespace: Any, room: Any) -> Any:
            result = await super().leave_room(sid, namespace, room)
            await self._say_changes()
            return result

        async def _handle_enter_room(self, message: Any) -> None:
            await super()._handle_enter_room(message)
            await self._say_changes()

        async def _handle_leave_room(self, message: Any) -> None:
            await super()._handle_leave_room(message)
            await self._say_changes()

        async def connect(self, *args: Any, **kwargs: Any) -> Any:
            self._listen_here()
            sid = await super().connect(*args, **kwargs)
            await self._settle()
            return sid

        async def disconnect(self, *args: Any, **kwargs: Any) -> Any:
            result = await super().disconnect(*args, **kwargs)
            await self._say_changes()
            return result

        async def close_room(self, *args: Any, **kwargs: Any) -> Any:
            result = await super().close_room(*args, **kwargs)
            await self._say_changes()
            return result

        if hasattr(socketio.AsyncRedisManager, "pre_connect"):

            async def pre_connect(self, eio_sid: Any, namespace: Any) -> Any:
                self._listen_here()
                sid = await super().pre_connect(eio_sid, namespace)
                await self._settle()
                return sid

    # ── emits ──

    async def emit(
        self, event: Any, data: Any, namespace: Any = None, room: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self._listen_here()
        namespace = namespace or "/"
        if self._is_private(kwargs.get("to") or room, namespace):
            kwargs["ignore_queue"] = True
        return await super().emit(event, data, namespace, room, *args, **kwargs)

    if not _HANDLES_OWN:
        # As later versions do it, so that an emit to a sid does not overtake one to a room that the sid is in.

        async def _publish(self, data: Any) -> Any:
            if self.is_greeted and data.get("method") == "emit":
                data = {**data, "sidrail": True}
                await super()._handle_emit(data)
            return await super()._publish(data)

        async def _handle_emit(self, message: Any) -> None:
            if "sidrail" not in message or message.get("host_id") != self.host_id:
                await super()._handle_emit(message)

    # ── the connection ──

    async def _say(self, commands: List[Command]) -> None:
        """Over the connection that was greeted, in order. One that is lost is noticed by the listener."""
        connection, writer = self._greeted
        try:
            for command in commands:
                writer.writelines(connection.pack_command(*command))
                await writer.drain()
        except Exception as error:
            self._get_logger().debug("sidrail: not said: %s", error)

    def _lock(self) -> asyncio.Lock:
        if self._sending is None:
            self._sending = asyncio.Lock()
        return self._sending

    async def _say_changes(self) -> None:
        if not self._talk.flush_is_due():
            return
        async with self._lock():
            await self._say(self._talk.flush())

    async def _take(self, response: Any) -> Optional[Tuple[Any]]:
        """As SidrailManager._take."""
        channel = text_of(response["channel"])
        if response["type"] == "subscribe":
            if channel == self._greeting:
                self._talk.begin()
            elif channel == self.channel:
                self._talk.confirm()
            self._wake()
        elif response["type"] != "message":
            return None
        elif channel == self._greeting:
            async with self._lock():
                commands = self._talk.hear(bytes_of(response["data"]))
                if commands and commands[0][1] == b"HELLO":
                    self._greeted = (self._own_pubsub.connection, self._own_pubsub.connection._writer)
                    self._backlog.clear()  # it comes again
                self._wake()
                await self._say(commands)
        else:
            return payload_of(self, response)
        return None

    async def _read_until_joined(self) -> None:
        """The listener itself has entered a room: it goes on reading, and keeps what it reads."""
        loop = asyncio.get_running_loop()
        until = loop.time() + JOIN_WITHIN
        try:
            while not self._talk.is_joined() and loop.time() < until:
                taken = await self._take(await self._responses.__anext__())
                if taken is not None:
                    self._backlog.append(taken)
        except Exception as error:
            self._get_logger().debug("sidrail: %s", error)  # the listener sees it again

    async def _subscribe(self) -> None:
        if self.redis is None:
            self._redis_connect()
        redis: Any = self.redis
        self._own_pubsub = redis.pubsub(ignore_subscribe_messages=False)
        self._backlog.clear()
        self._talk.begin()
        await self._own_pubsub.subscribe(*self._names())
        self._responses = self._own_pubsub.listen()

    async def _next(self) -> Any:
        if self._backlog:
            return self._backlog.popleft()
        return await self._take(await self._responses.__anext__())

    if _TALKS:

        async def _listen(self) -> AsyncGenerator[Any, None]:
            self._listener = asyncio.current_task()
            retry = RETRY_FIRST
            while True:
                try:
                    await self._subscribe()
                    while True:
                        taken = await self._next()
                        retry = RETRY_FIRST
                        if taken is None:
                            continue
                        await self._count()
                        if taken[0] is not None:
                            yield taken[0]
                except Exception as error:
                    delay = spread(retry)
                    await self._lose(error, delay)
                    await asyncio.sleep(delay)
                    retry = min(retry * 2, RETRY_MAX)

    async def _count(self) -> None:
        commands = self._talk.count()
        # Not waited for: who holds it may wait for this task to read.
        if commands and not self._lock().locked():
            async with self._lock():
                await self._say(commands)

    async def _lose(self, error: Exception, delay: float) -> None:
        self._note_error(error)
        self._get_logger().error("Cannot receive from redis... retrying in %.2f secs: %s", delay, error)
        self._talk.end()
        self._wake()
        try:
            closing = self._own_pubsub
            await (closing.aclose() if hasattr(closing, "aclose") else closing.close())
        except Exception as ignored:
            self._get_logger().debug("sidrail: %s", ignored)
