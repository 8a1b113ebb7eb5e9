"""What the Python scripts share: steps, deadlines, and one face for mcp 1.x and 2.x.

Both versions are driven through `ClientSession`, which only speaks the session era: `initialize()` and never `server/discover`.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import sys
import threading
import time
import warnings

from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

# The SDKs warn of everything that the modern era leaves out; these scripts are about the session era.
warnings.simplefilter("ignore")

VERSION = importlib.metadata.version("mcp")
IS_V2 = int(VERSION.split(".")[0]) >= 2

if IS_V2:
    import httpx2 as httpx
else:
    import httpx

SAMPLED = "the sampled text"
ELICITED = {"username": "ringmain", "email": "ringmain@example.com"}

passed = 0
failed = 0


def plain(model):
    """The JSON of a message, with the names of the wire: 1.x and 2.x name their fields differently."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: got {actual!r}, expected {expected!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def text(result):
    return "".join(block.get("text", "") for block in result["content"])


async def until(log, predicate, seconds, what):
    """Waits on a `Log` until `predicate(items)` holds."""

    async def wait():
        while not predicate(log.items):
            await log.changed()

    try:
        await asyncio.wait_for(wait(), seconds)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what}: nothing within {seconds} s") from None


class Log:
    """A list that can be waited on."""

    def __init__(self):
        self.items = []
        self._changed = asyncio.Event()

    def append(self, item):
        self.items.append(item)
        self._changed.set()

    async def changed(self):
        self._changed.clear()
        await self._changed.wait()


def reason(error):
    """An exception on one line; of a group, which the SDK's tasks wrap everything into, what is inside."""
    if isinstance(error, asyncio.TimeoutError):
        return "nothing within the deadline"
    if isinstance(error, AssertionError):
        return str(error)
    if hasattr(error, "exceptions"):
        return "; ".join(reason(inner) for inner in error.exceptions)
    return " | ".join(repr(error).split("\n"))


async def step(name, run, seconds=20):
    """Runs one step, prints its line. A step that fails does not stop the next one."""
    global passed, failed
    try:
        await asyncio.wait_for(run(), seconds)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is what the line says
        failed += 1
        print(f"not ok {name}: {reason(error)}", flush=True)
        return False
    passed += 1
    print(f"ok {name}", flush=True)
    return True


def overall_deadline(seconds):
    """Ends the script with a failure when it takes longer than `seconds`, whatever its loop is doing."""

    def watch():
        time.sleep(seconds)
        print(f"not ok overall deadline: the script took longer than {seconds} s", flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def finish():
    print(f"# {passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)


class Session:
    """One session: the SDK's own `ClientSession`, and what went over the wire."""

    def __init__(self):
        self.notifications = Log()
        self.sampling = []
        self.elicitation = []
        self.exchanges = []  # (method, status) of each HTTP exchange
        self.id = None

    async def _on_response(self, response):
        self.exchanges.append((response.request.method, response.status_code))
        self.id = response.headers.get("mcp-session-id") or self.id

    async def _on_message(self, message):
        if isinstance(message, Exception):
            return
        message = getattr(message, "root", message)
        if hasattr(message, "method"):
            self.notifications.append(plain(message))

    async def _on_sampling(self, _context, params):
        self.sampling.append(plain(params))
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def _on_elicitation(self, _context, params):
        self.elicitation.append(plain(params))
        return types.ElicitResult(action="accept", content=ELICITED)

    @contextlib.asynccontextmanager
    async def open(self, url):
        """Connects; on leaving, the SDK terminates the session (DELETE)."""
        hooks = {"response": [self._on_response]}
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(30, read=60), event_hooks=hooks) as http,
            streamable_http_client(url, http_client=http) as streams,
            ClientSession(
                streams[0],
                streams[1],
                sampling_callback=self._on_sampling,
                elicitation_callback=self._on_elicitation,
                message_handler=self._on_message,
            ) as client,
        ):
            self.client = client
            self.initialized = plain(await client.initialize())
            yield self

    async def call(self, name, arguments=None, on_progress=None):
        return plain(await self.client.call_tool(name, arguments, progress_callback=on_progress))

    def progress(self, since=0):
        """Progress notifications as they came in, wanted by a call or not."""
        return [n["params"] for n in self.notifications.items[since:] if n["method"] == "notifications/progress"]
