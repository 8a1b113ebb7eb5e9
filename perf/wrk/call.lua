-- Calls of a tool, for wrk (https://github.com/wg/wrk):
--
--   SESSION=$(perf/wrk/session.sh) wrk -t1 -c64 -d10s --latency -s perf/wrk/call.lua http://127.0.0.1:8080/mcp
--
-- Whatever is not answered with 200 is counted at the end.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["Mcp-Session-Id"] = os.getenv("SESSION")
wrk.headers["MCP-Protocol-Version"] = "2025-11-25"

local number = 0

-- Requests of one session are told apart by their IDs: those of one thread go up, and threads are far apart.
function setup(thread)
  thread:set("first", number)
  number = number + 1000000000
end

function init()
  number = first
end

function request()
  number = number + 1
  return wrk.format(nil, nil, nil, string.format(
    '{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"test_simple_text","arguments":{}}}', number))
end

function done(summary, latency)
  io.write(string.format("p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms; not 2xx: %d\n", latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, summary.errors.status))
end
