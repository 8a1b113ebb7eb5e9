"""Drains and restarts the server under the Python package mcp (1.30 or 2.3).

usage: python drain_py.py SERVER_BINARY
"""

import asyncio
import contextlib
import signal
import socket
import sys
import urllib.error
import urllib.request

from py_common import VERSION, Session, check, equal, finish, overall_deadline, step, text, until


class Server:
    """A server of one's own: started, drained and started again on the same port."""

    def __init__(self, binary):
        self.binary = binary
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"

    async def start(self):
        quiet = asyncio.subprocess.DEVNULL
        arguments = ["serve", "--listen", f"127.0.0.1:{self.port}"]
        self.process = await asyncio.create_subprocess_exec(self.binary, *arguments, stdout=quiet, stderr=quiet)
        for _ in range(500):
            if await asyncio.to_thread(self.answers):
                return
            check(self.process.returncode is None, "the server ended before it answered")
            await asyncio.sleep(0.02)
        raise AssertionError("the server does not answer")

    def answers(self):
        try:
            urllib.request.urlopen(self.url, timeout=2)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    async def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 20)

    async def stop(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


async def drains(server, session):
    count = 20
    seen = []

    async def on_progress(progress, total, message):
        seen.append(progress)

    # Behind a first call this client asks what tools there are, which would be a request of its own during the drain.
    await session.call("test_simple_text")
    arguments = {"count": count, "interval_ms": 50}
    call = asyncio.create_task(session.call("test_progress_stream", arguments, on_progress))
    await until(session.notifications, lambda items: items, 10, "progress")
    ended = asyncio.create_task(server.terminate())
    equal(text(await call), f"done {count}")
    equal(len(seen), count, "reports")
    equal(await ended, 0, "exit code")


async def is_told(server, session):
    await server.start()
    for _ in range(100):
        try:
            await session.call("test_simple_text")
        except Exception as error:  # noqa: BLE001 - the versions raise different ones
            if (("POST", 404) in session.exchanges) or "erminated" in str(error):
                return
            await asyncio.sleep(0.05)
    raise AssertionError("the old session goes on")


async def starts_over(server):
    async with Session().open(server.url) as session:
        check("simple text" in text(await session.call("test_simple_text")), "a call of the new session")
        await session.call("test_trigger_tool_change")
        is_change = lambda items: any(n["method"] == "notifications/tools/list_changed" for n in items)  # noqa: E731
        await until(session.notifications, is_change, 10, "the notification on the new stream")


async def main(binary):
    server = Server(binary)
    await server.start()
    try:
        async with Session().open(server.url) as session:
            what = "a call in flight finishes during the drain, and the server ends with 0"
            await step(what, lambda: drains(server, session), 30)
            await step("the client is told that its session is gone", lambda: is_told(server, session), 30)
        await step("it starts a new one and goes on", lambda: starts_over(server), 30)
    finally:
        await server.stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python drain_py.py SERVER_BINARY")
    print(f"# mcp {VERSION}")
    overall_deadline(100)
    asyncio.run(main(sys.argv[1]))
    finish()
