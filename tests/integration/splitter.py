"""A TCP load balancer that knows nothing: each new connection goes to the next target.

    python splitter.py PORT TARGET_PORT...

Between clients and several proxies it does the worst that is allowed: two connections of one session rarely meet
the same proxy. `Splitter` runs it as a server of a test.
"""
import asyncio
import itertools
import pathlib
import sys


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(port, targets):
    turns = itertools.cycle(targets)

    async def accept(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", next(turns))
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), [int(word) for word in sys.argv[2:]]))
else:
    import signal

    import daemons

    class Splitter(daemons.Server):
        """Spreads connections over `targets` (servers with a `port`), by turns."""

        expected_status = (-signal.SIGTERM,)

        def __init__(self, name, folder, targets):
            self.port = daemons.free_port()
            self.url = f"http://127.0.0.1:{self.port}"
            program = pathlib.Path(__file__).resolve()
            super().__init__(name, [sys.executable, program, self.port, *[t.port for t in targets]], folder)

        def is_ready(self):
            return daemons.answers(self.port)
