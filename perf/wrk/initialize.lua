-- New sessions, one for each request, for wrk:
--
--   wrk -t1 -c64 -d10s --latency -s perf/wrk/initialize.lua http://127.0.0.1:8080/mcp

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.body = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
  .. '"capabilities":{},"clientInfo":{"name":"wrk","version":"1"}}}'

function done(summary, latency)
  io.write(string.format("p50 %.3f ms, p99 %.3f ms; not 2xx: %d\n", latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, summary.errors.status))
end
