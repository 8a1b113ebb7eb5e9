"""Drives the server with the Python package mcp, 1.30 or 2.3: whichever the interpreter has.

usage: python py_mcp.py URL
"""

import asyncio
import json
import sys

from mcp import types
from py_common import (
    ELICITED, IS_V2, SAMPLED, VERSION, Session, check, equal, finish, httpx, overall_deadline, plain, reason, step, text, until
)

if IS_V2:
    from mcp import MCPError as McpError

    def uri(value):
        return value
else:
    from mcp import McpError
    from pydantic import AnyUrl

    uri = AnyUrl


def prompt_reference(name):
    return types.PromptReference(type="ref/prompt", name=name)


def collect(into):
    async def on_progress(progress, total, message):
        into.append(progress)

    return on_progress


async def run(url, session):
    client = session.client
    call = session.call

    async def connect():
        check(session.id and all(0x21 <= ord(c) <= 0x7E for c in session.id), f"session id: {session.id}")
        equal(session.initialized["protocolVersion"], "2025-11-25", "protocol version")

    async def list_tools():
        names = [tool["name"] for tool in plain(await client.list_tools())["tools"]]
        equal(len(set(names)), len(names), "unique tool names")
        used = {"test_simple_text", "test_error_handling", "test_tool_with_progress", "test_tool_with_logging", "test_elicitation",
                "test_sampling", "test_image_content", "test_audio_content", "test_embedded_resource",
                "test_trigger_tool_change", "test_progress_stream"}
        equal(used - set(names), set(), "missing tools")

    async def list_prompts():
        prompts = plain(await client.list_prompts())["prompts"]
        check(len(prompts) >= 4, f"{len(prompts)} prompts")

    async def list_resources():
        resources = plain(await client.list_resources())["resources"]
        check(len(resources) >= 2, f"{len(resources)} resources")

    async def simple_text():
        result = await call("test_simple_text")
        equal(text(result), "This is a simple text response for testing.")
        check(not result.get("isError"), "not an error")

    async def tool_error():
        result = await call("test_error_handling")
        equal(result["isError"], True, "isError")
        equal(result["content"][0]["type"], "text")

    async def progress():
        seen = []
        await call("test_tool_with_progress", {}, collect(seen))
        equal(seen, [0, 50, 100], "progress")

    async def progress_exactly_once():
        before = len(session.notifications.items)
        seen = []
        result = await call("test_progress_stream", {"count": 20, "interval_ms": 5}, collect(seen))
        equal(text(result), "done 20")
        # A round trip, so that a message which comes twice has time to show itself.
        await client.send_ping()
        equal(seen, list(range(1, 21)), "progress")
        equal([p["progress"] for p in session.progress(before)], list(range(1, 21)), "on the wire")

    async def set_level():
        await client.set_logging_level("info")

    async def logging():
        before = len(session.notifications.items)

        def logged(items):
            return [n["params"]["data"] for n in items[before:] if n["method"] == "notifications/message"]

        await call("test_tool_with_logging")
        await client.send_ping()
        await until(session.notifications, lambda items: len(logged(items)) >= 3, 5, "3 log messages")
        equal(logged(session.notifications.items),
              ["Tool execution started", "Tool processing data", "Tool execution completed"], "log messages")

    async def elicitation():
        result = await call("test_elicitation", {"message": "Who is there?"})
        check("accept" in text(result), text(result))
        check(ELICITED["email"] in text(result), text(result))
        equal([params["message"] for params in session.elicitation], ["Who is there?"], "asked")

    async def sampling():
        result = await call("test_sampling", {"prompt": "Say something"})
        check(SAMPLED in text(result), text(result))
        equal([params["messages"][0]["content"]["text"] for params in session.sampling], ["Say something"], "asked")

    async def concurrent():
        async def one(i):
            match i % 9:
                case 0:
                    equal(text(await call("test_simple_text")), "This is a simple text response for testing.")
                case 1:
                    equal((await call("test_error_handling"))["isError"], True)
                case 2:
                    seen = []
                    await call("test_tool_with_progress", {}, collect(seen))
                    equal(seen, [0, 50, 100], "progress")
                case 3:
                    seen = []
                    result = await call("test_progress_stream", {"count": i + 1, "interval_ms": 3}, collect(seen))
                    equal(text(result), f"done {i + 1}")
                    equal(seen, list(range(1, i + 2)), "progress")
                case 4:
                    check("accept" in text(await call("test_elicitation", {"message": f"question {i}"})), "accept")
                case 5:
                    contents = plain(await client.read_resource(uri(f"test://template/{i}/data")))["contents"]
                    equal(json.loads(contents[0]["text"])["id"], str(i))
                case 6:
                    equal((await call("test_image_content"))["content"][0]["mimeType"], "image/png")
                case 7:
                    equal((await call("test_embedded_resource"))["content"][0]["resource"]["uri"], "test://embedded-resource")
                case 8:
                    arguments = {"arg1": f"a{i}", "arg2": f"b{i}"}
                    messages = plain(await client.get_prompt("test_prompt_with_arguments", arguments))["messages"]
                    equal(messages[0]["content"]["text"], f"Prompt with arguments: arg1='a{i}', arg2='b{i}'")

        outcomes = await asyncio.gather(*(one(i) for i in range(20)), return_exceptions=True)
        equal([f"call {i}: {o}" for i, o in enumerate(outcomes) if o is not None], [], "failures")

    async def list_changed():
        before = len(session.notifications.items)

        def changes(items):
            return [n for n in items[before:] if n["method"] == "notifications/tools/list_changed"]

        await call("test_trigger_tool_change")
        await until(session.notifications, lambda items: len(changes(items)) >= 1, 10, "tools/list_changed")
        await client.send_ping()
        equal(len(changes(session.notifications.items)), 1, "delivered once")

    async def read_resources():
        async def read(name):
            return plain(await client.read_resource(uri(name)))["contents"][0]

        check((await read("test://static-text"))["text"], "text")
        check((await read("test://static-binary"))["blob"], "blob")
        equal(json.loads((await read("test://template/123/data"))["text"])["id"], "123")

    async def unknown_resource():
        try:
            await client.read_resource(uri("test://nowhere"))
        except McpError as error:
            check(error.error.code in (-32002, -32602), f"code {error.error.code}")
        else:
            raise AssertionError("no error")

    async def subscribe():
        await client.subscribe_resource(uri("test://watched-resource"))
        await client.unsubscribe_resource(uri("test://watched-resource"))

    async def get_prompts():
        async def prompt(name, arguments=None):
            return plain(await client.get_prompt(name, arguments))["messages"]

        check(len(await prompt("test_simple_prompt")) >= 1, "messages")
        messages = await prompt("test_prompt_with_arguments", {"arg1": "x", "arg2": "y"})
        equal(messages[0]["content"]["text"], "Prompt with arguments: arg1='x', arg2='y'")
        messages = await prompt("test_prompt_with_embedded_resource", {"resourceUri": "test://example"})
        check(any(m["content"]["type"] == "resource" for m in messages), "resource")
        messages = await prompt("test_prompt_with_image")
        check(any(m["content"]["type"] == "image" for m in messages), "image")

    async def completion():
        argument = {"name": "arg1", "value": "a"}
        result = plain(await client.complete(prompt_reference("test_prompt_with_arguments"), argument))
        check(isinstance(result["completion"]["values"], list), "values")

    async def ping():
        await client.send_ping()

    await step("connect", connect)
    await step("list tools", list_tools)
    await step("list prompts", list_prompts)
    await step("list resources", list_resources)
    await step("simple text", simple_text)
    await step("tool error", tool_error)
    await step("progress", progress)
    await step("progress in order, exactly once", progress_exactly_once)
    await step("set level", set_level)
    await step("logging", logging)
    await step("elicitation", elicitation)
    await step("sampling", sampling)
    await step("20 concurrent calls", concurrent)
    await step("list_changed on the GET stream", list_changed)
    await step("read resources", read_resources)
    await step("unknown resource", unknown_resource)
    await step("subscribe and unsubscribe", subscribe)
    await step("get prompts", get_prompts)
    await step("completion", completion)
    await step("ping", ping)


async def terminated(url, session):
    """The SDK sent DELETE when the session was left; the id is of no use any more."""
    statuses = [status for method, status in session.exchanges if method == "DELETE"]
    check(len(statuses) == 1 and 200 <= statuses[0] < 300, f"DELETE: {statuses}")
    headers = {"accept": "application/json, text/event-stream", "mcp-session-id": session.id, "mcp-protocol-version": "2025-11-25"}
    async with httpx.AsyncClient(timeout=5) as http:
        response = await http.post(url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        equal(response.status_code, 404, "POST after DELETE")
        response = await http.get(url, headers=headers | {"accept": "text/event-stream"})
        equal(response.status_code, 404, "GET after DELETE")


async def main(url):
    session = Session()

    async def connected():
        async with session.open(url):
            await run(url, session)

    try:
        await asyncio.wait_for(connected(), 100)
    except BaseException as error:  # noqa: BLE001 - groups of errors from the SDK's tasks too
        await step("connection", lambda: _raise(error))
    await step("terminate", lambda: terminated(url, session))


async def _raise(error):
    raise AssertionError(reason(error))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python py_mcp.py URL")
    print(f"# mcp {VERSION}")
    overall_deadline(120)
    asyncio.run(main(sys.argv[1]))
    finish()
