"""Cuts a call of the Python package mcp (1.30 or 2.3) in the middle; its own reconnection has to bring everything, once.

usage: python cut_py.py URL   (needs node for cut_proxy.mjs)

What both versions of this client do, and what these steps therefore ask for:
- A POST stream that ends or breaks after an event with an id is resumed by GET with that id.
- A resumed stream that *ends* is resumed from the latest id, any number of times. So five cuts end the body properly.
- A resumed stream that *breaks* is resumed from the id it began with: the client itself then delivers events twice. So only
  the first connection of a call is broken here.
- It gives up after two failed attempts in a row. So the resume of a client that is away is held, not refused.
"""

import asyncio
import contextlib
import pathlib
import sys

from py_common import VERSION, Log, Session, check, equal, finish, overall_deadline, step, text, until

PROXY = pathlib.Path(__file__).with_name("cut_proxy.mjs")


class Proxy:
    """`cut_proxy.mjs` as a process: its lines are counted, its standard input commands it."""

    def __init__(self):
        self.lines = Log()

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, upstream, *options):
        self = cls()
        self.process = await asyncio.create_subprocess_exec(
            "node", str(PROXY), "--upstream", upstream, *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        reader = asyncio.create_task(self._read())
        try:
            await until(self.lines, lambda lines: lines, 10, "the proxy's address")
            word, self.url = self.lines.items[0].split()
            equal(word, "listening")
            yield self
        finally:
            reader.cancel()
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    async def _read(self):
        async for line in self.process.stdout:
            self.lines.append(line.decode().strip())

    async def command(self, word):
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()

    def count(self, what):
        return sum(line.startswith(f"{what} ") for line in self.lines.items)

    async def until(self, what, count):
        await until(self.lines, lambda _: self.count(what) >= count, 20, f"{what} {count} at the proxy")


def collect(into):
    async def on_progress(progress, total, message):
        into.append(progress)

    return on_progress


async def survives(url, mode, times):
    options = ["--after-events", "3", "--times", str(times), "--mode", mode, "--match", '"test_progress_stream"']
    async with Proxy.start(url, *options) as proxy, Session().open(proxy.url) as session:
        seen = []
        result = await session.call("test_progress_stream", {"count": 20, "interval_ms": 50}, collect(seen))
        equal(text(result), "done 20")
        # A round trip, so that a message which comes twice has time to show itself.
        await session.client.send_ping()
        equal(proxy.count("cut"), times, "cuts")
        equal(proxy.count("passed"), times, "resumes")
        equal(seen, list(range(1, 21)), "progress")
        equal([p["progress"] for p in session.progress()], list(range(1, 21)), "on the wire")


async def away(url):
    options = ["--after-events", "1", "--times", "1", "--mode", "end", "--match", '"count":3', "--on-reconnect", "hold"]
    async with Proxy.start(url, *options) as proxy, Session().open(proxy.url) as session:
        seen = []
        call = asyncio.create_task(session.call("test_progress_stream", {"count": 3, "interval_ms": 20}, collect(seen)))
        await proxy.until("cut", 1)
        # A longer call that starts later: when it is done, so is the first.
        equal(text(await session.call("test_progress_stream", {"count": 12, "interval_ms": 20})), "done 12")
        await proxy.until("held", 1)
        check(not call.done() and not seen, "nothing has come before the resume")
        await proxy.command("release")
        equal(text(await call), "done 3")
        equal(seen, [1, 2, 3], "progress")


async def main(url):
    await step("a call survives 5 cuts (end)", lambda: survives(url, "end", 5), 60)
    await step("a call survives a cut (rst)", lambda: survives(url, "rst", 1), 60)
    await step("a call survives a cut (fin)", lambda: survives(url, "fin", 1), 60)
    await step("a result produced while the client was away is delivered on resume", lambda: away(url), 60)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python cut_py.py URL")
    print(f"# mcp {VERSION}")
    overall_deadline(240)
    asyncio.run(main(sys.argv[1]))
    finish()
