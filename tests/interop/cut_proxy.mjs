// A proxy between client and server that cuts SSE responses.
//
// It passes requests and responses on as they come. An SSE response that `match` selects is cut after `afterEvents` events (or
// after `afterBytes` bytes of body): exactly that much reaches the client, then both sides are ended, the client's in one of three ways:
//   rst  the connection is reset
//   fin  the connection is closed in the middle of the body
//   end  the body ends properly, as if the server had closed the stream; the connection stays usable
// After `times` cuts nothing is cut any more. Between a cut and `release()` reconnections can be refused (reset) or held (left
// waiting); see `onReconnect`.
//
// As a command, it says what happens on standard output and takes `release` and `stop` on standard input:
//   node cut_proxy.mjs --upstream URL [--after-events N | --after-bytes N] [--times N] [--mode rst|fin|end] [--match TEXT]
//                      [--on-reconnect pass|refuse|hold]
//   listening URL / cut N / refused N / held N / passed N
import http from 'node:http';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Log } from './harness.mjs';

/**
 * Starts a proxy on a free loopback port.
 *
 * `match(request)` gets `{method, headers, body}` and says whether this request's SSE response may be cut. A resume (GET with
 * `Last-Event-ID`) may be cut when the id was seen on a response that may be.
 */
export async function startCutProxy({ upstream, afterEvents = Infinity, afterBytes = Infinity, times = 1, mode = 'rst',
  match = () => true, onReconnect = 'pass' }) {
  const target = new URL(upstream);
  const agent = new http.Agent({ keepAlive: false });
  const ids = new Set(); // ids seen on responses that may be cut
  const waiting = []; // resumes held until release()
  const log = new Log(); // {what: 'cut' | 'refused' | 'held' | 'passed', count}
  const counts = { cut: 0, refused: 0, held: 0, passed: 0 };
  let reconnect = onReconnect;

  const note = what => {
    counts[what] += 1;
    log.push({ what, count: counts[what] });
  };

  function forward(request, response, body, mayCut) {
    const headers = { ...request.headers, host: target.host };
    delete headers.connection;
    const out = http.request({
      host: target.hostname, port: target.port, path: target.pathname + target.search, method: request.method, headers, agent,
    });
    out.on('response', incoming => {
      const passOn = { ...incoming.headers };
      for (const name of ['connection', 'keep-alive', 'transfer-encoding']) delete passOn[name];
      const isStream = incoming.headers['content-type']?.startsWith('text/event-stream');
      // A short stream comes with its length. What is cut is shorter, and must be able to end properly all the same.
      if (isStream && mayCut) delete passOn['content-length'];
      response.writeHead(incoming.statusCode, passOn);
      response.flushHeaders();
      if (isStream && mayCut) passEvents(incoming, response, out);
      else incoming.pipe(response);
      incoming.on('error', () => response.destroy());
    });
    out.on('error', () => response.destroy());
    // The client went away: so does our request, as it would without a proxy.
    response.on('close', () => out.destroy());
    out.end(body);
  }

  function passEvents(incoming, response, out) {
    let events = 0;
    let bytes = 0;
    let line = ''; // the line being read, without its end
    let empty = true; // no field yet since the last blank line
    let done = false;
    incoming.on('data', chunk => {
      if (done) return;
      for (let i = 0; i < chunk.length; i += 1) {
        bytes += 1;
        if (chunk[i] === 0x0a) {
          if (line === '') {
            if (!empty) events += 1;
            empty = true;
          } else {
            if (line.startsWith('id:')) ids.add(line.slice(3).trim());
            if (!line.startsWith(':')) empty = false; // a comment alone is no event
          }
          line = '';
        } else if (chunk[i] !== 0x0d) {
          line += String.fromCharCode(chunk[i]);
        }
        if ((events >= afterEvents || bytes >= afterBytes) && counts.cut < times) {
          done = true;
          response.write(chunk.subarray(0, i + 1), () => cut(response, out));
          return;
        }
      }
      response.write(chunk);
    });
    incoming.on('end', () => {
      if (!done) response.end();
    });
  }

  function cut(response, out) {
    const { socket } = response;
    out.destroy();
    if (mode === 'rst') socket?.resetAndDestroy();
    else if (mode === 'fin') socket?.destroy();
    else response.end();
    note('cut');
  }

  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', part => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      const lastEventId = request.headers['last-event-id'];
      const isResume = request.method === 'GET' && lastEventId !== undefined && ids.has(lastEventId);
      const mayCut = isResume || match({ method: request.method, headers: request.headers, body: body.toString() });
      const go = () => {
        if (response.destroyed) return;
        if (isResume) note('passed');
        forward(request, response, body, mayCut);
      };
      if (isResume && reconnect === 'refuse') {
        response.socket.resetAndDestroy();
        note('refused');
      } else if (isResume && reconnect === 'hold') {
        waiting.push(go);
        note('held');
      } else {
        go();
      }
    });
    request.on('error', () => response.destroy());
  });
  // A held client may wait as long as it likes.
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  server.keepAliveTimeout = 60_000;
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });

  return {
    url: `http://127.0.0.1:${server.address().port}${target.pathname}${target.search}`,
    counts,
    log,
    /** Resolves when `what` has happened `count` times. */
    until: (what, count, ms) => log.until(() => counts[what] >= count, ms, `${what} ${count} at the proxy`),
    /** Lets reconnections through from now on, the held ones too. */
    release() {
      reconnect = 'pass';
      for (const go of waiting.splice(0)) go();
    },
    close() {
      server.close();
      server.closeAllConnections();
      agent.destroy();
    },
  };
}

async function main() {
  const { values } = parseArgs({
    options: {
      upstream: { type: 'string' }, 'after-events': { type: 'string' }, 'after-bytes': { type: 'string' },
      times: { type: 'string', default: '1' }, mode: { type: 'string', default: 'rst' }, match: { type: 'string', default: '' },
      'on-reconnect': { type: 'string', default: 'pass' },
    },
  });
  if (!values.upstream) {
    console.error('usage: node cut_proxy.mjs --upstream URL [options]');
    process.exit(2);
  }
  const proxy = await startCutProxy({
    upstream: values.upstream,
    afterEvents: Number(values['after-events'] ?? Infinity),
    afterBytes: Number(values['after-bytes'] ?? Infinity),
    times: Number(values.times),
    mode: values.mode,
    match: request => request.body.includes(values.match),
    onReconnect: values['on-reconnect'],
  });
  const push = proxy.log.push.bind(proxy.log);
  proxy.log.push = entry => {
    console.log(`${entry.what} ${entry.count}`);
    push(entry);
  };
  console.log(`listening ${proxy.url}`);
  // The end of standard input means that whoever started the proxy is gone.
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'release') proxy.release();
    if (line === 'stop') break;
  }
  process.exit(0);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
