// Proxies in front of the server, configured as docs/operations.md says. Clients are cut at random and resume: each of
// them gets every event once and in order, and every call its progress and its result once.
// usage: node proxies.mjs BINARY PROXY…     PROXY: nginx, haproxy, caddy, apache2, lighttpd, varnishd
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { check, equal, finish, overallDeadline, range, SseParser, step, within } from './harness.mjs';

const [binary, ...names] = process.argv.slice(2);
if (!binary || !names.length) {
  console.error(`usage: node ${process.argv[1]} BINARY PROXY…`);
  process.exit(2);
}

const CLIENTS = 12;
const EVENTS = 150; // of each standalone stream
const CALLS = 10; // of each client
const PROGRESS = 8; // notifications of each call
const seed = Number(process.env.RINGMAIN_TEST_SEED ?? (Math.random() * 2 ** 32) >>> 0);
const directory = mkdtempSync(join(tmpdir(), 'ringmain-proxies-'));
chmodSync(directory, 0o755); // varnish and httpd give up root before they read
const children = new Set();

/** Numbers below a limit that look random (mulberry32). */
function randomOf(stream) {
  let state = (seed + Math.imul(stream, 0x9e3779b9)) >>> 0;
  return limit => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

/** The configuration that docs/operations.md shows for a proxy. */
function documented(name) {
  const text = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  const block = new RegExp(`<!-- proxy: ${name} -->\n\`\`\`[a-z]+\n(.*?)\`\`\``, 's').exec(text);
  check(block, `docs/operations.md shows a configuration of ${name}`);
  return block[1];
}

/** Replaces texts that must be there: the test then runs what the documentation shows. */
function replace(text, pairs) {
  for (const [from, to] of pairs) {
    check(text.includes(from), `the configuration has ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** How each proxy is started. `modes`: what is changed in its configuration; `{}` is the documented one. `port` is where
 * the proxy listens, `up` where the server does. */
const proxies = {
  nginx: {
    modes: {
      'keep-alive upstream': [],
      'upstream closed after each request': [['    keepalive 32; ', '    # '], ['proxy_set_header Connection "";', '']],
    },
    file: (text, port, up, home) => `daemon off; pid ${home}/pid; error_log ${home}/error.log; worker_processes 1;
events { worker_connections 1024; }
http { access_log off; ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(d => `${d}_temp_path ${home}/${d};`).join(' ')}
${replace(text, [['listen 80;', `listen 127.0.0.1:${port};`], ['127.0.0.1:8080', `127.0.0.1:${up}`]])}}`,
    command: (file, home) => ['nginx', '-e', `${home}/start.log`, '-p', home, '-c', file],
  },
  haproxy: {
    modes: {
      'keep-alive upstream': [['http-reuse safe', 'http-reuse always']],
      'as documented': [],
      'upstream closed after each request': [['http-reuse safe', 'http-reuse never\n    option http-server-close']],
    },
    file: (text, port, up) => replace(text, [['bind :80', `bind 127.0.0.1:${port}`], ['127.0.0.1:8080', `127.0.0.1:${up}`]]),
    command: file => ['haproxy', '-db', '-f', file],
  },
  caddy: {
    modes: { 'h2c upstream': [] },
    file: (text, port, up) =>
      `{\n admin off\n auto_https off\n}\n${replace(text, [['http://:80', `http://:${port}`], ['127.0.0.1:8080', `127.0.0.1:${up}`]])}`,
    command: file => ['caddy', 'run', '--adapter', 'caddyfile', '--config', file],
  },
  apache2: {
    modes: { 'keep-alive upstream': [], 'upstream closed after each request': [['flushpackets=on', 'flushpackets=on disablereuse=on']] },
    file: (text, port, up, home) => `ServerRoot ${home}\nServerName localhost\nPidFile ${home}/pid\nErrorLog ${home}/error.log
${['mpm_event', 'authz_core', 'proxy', 'proxy_http']
    .map(m => `LoadModule ${m}_module /usr/lib/apache2/modules/mod_${m}.so`).join('\n')}
${process.getuid() === 0 ? 'User www-data\nGroup www-data' : ''}
${replace(text, [['Listen 80', `Listen 127.0.0.1:${port}`], ['127.0.0.1:8080', `127.0.0.1:${up}`]])}`,
    command: file => ['apache2', '-D', 'FOREGROUND', '-f', file],
  },
  lighttpd: {
    modes: { 'as documented': [] },
    file: (text, port, up, home) => `server.bind = "127.0.0.1"\nserver.document-root = "${home}"\n`
      + replace(text, [['server.port = 80', `server.port = ${port}`], ['"port" => 8080', `"port" => ${up}`]]),
    command: file => ['lighttpd', '-D', '-f', file],
  },
  varnishd: {
    modes: { 'as documented': [] },
    file: (text, port, up) => replace(text, [['"8080"', `"${up}"`]]),
    command: (file, home, port) => ['varnishd', '-F', '-a', `127.0.0.1:${port}`, '-f', file, '-n', `${home}/n`, '-s', 'malloc,16m'],
  },
};

const freePort = () => new Promise(resolve => {
  const server = net.createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

/** Starts a process; `output()` is what it has said. */
function start([command, ...args]) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: directory } });
  const parts = [];
  child.stdout.on('data', data => parts.push(data));
  child.stderr.on('data', data => parts.push(data));
  const ended = new Promise(resolve => {
    child.on('error', error => { parts.push(Buffer.from(`${error}\n`)); resolve(); });
    child.on('exit', resolve);
  });
  children.add(child);
  ended.then(() => children.delete(child));
  return {
    child, ended, output: () => Buffer.concat(parts).toString(),
    async stop() {
      child.kill('SIGTERM');
      await within(5000, ended, `end of ${command}`).catch(() => child.kill('SIGKILL'));
    },
  };
}

const until = (condition, ms, what) => {
  const deadline = Date.now() + ms;
  return (async () => {
    while (!(await condition())) {
      check(Date.now() < deadline, `${what}: not within ${ms} ms`);
      await sleep(20);
    }
  })();
};

/** The status of a GET, or 0. */
const statusOf = url => new Promise(resolve => {
  http.get(url, { agent: false }, response => { response.resume(); resolve(response.statusCode); }).on('error', () => resolve(0));
});

/** Sends a request; gives `{status, headers, text}` of its whole answer. */
const send = (url, options, body) => new Promise((resolve, reject) => {
  const request = http.request(url, options, response => {
    const parts = [];
    response.on('data', data => parts.push(data));
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(parts).toString() }));
  });
  request.on('error', reject);
  request.end(body);
});

/** A client of one session behind a proxy, whose connections are cut at random. */
class Client {
  #headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  cuts = 0;
  again = 0;

  constructor(url, random) {
    this.url = url;
    this.random = random;
    // Requests that are not cut share connections to the proxy.
    this.agent = new http.Agent({ keepAlive: true });
  }

  async open() {
    const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'ringmain-interop-proxies', version: '1' } };
    const { status, headers } = await this.post({ id: 0, method: 'initialize', params });
    equal(status, 200, 'initialize');
    this.session = headers['mcp-session-id'];
    Object.assign(this.#headers, { 'mcp-session-id': this.session, 'mcp-protocol-version': '2025-11-25' });
    equal((await this.post({ method: 'notifications/initialized' })).status, 202, 'initialized');
  }

  post(message) {
    return send(this.url, { method: 'POST', headers: this.#headers, agent: this.agent }, JSON.stringify({ jsonrpc: '2.0', ...message }));
  }

  async close() {
    equal((await send(this.url, { method: 'DELETE', headers: this.#headers, agent: this.agent })).status, 204, 'DELETE');
    this.agent.destroy();
  }

  /** Reads a stream up to a byte drawn at random, or until `see(event)` is false. Resolves when the connection is over. */
  exchange(method, lastEventId, body, see) {
    const headers = { ...this.#headers };
    if (lastEventId !== undefined) headers['last-event-id'] = lastEventId;
    // Every fourth connection is not cut; the others are in the head, in an event, or some events on.
    const draw = this.random(4);
    let left = draw === 0 ? Infinity : this.random(draw === 1 ? 200 : 6000);
    // A GET without an ID is not cut before it has one. A proxy may pass it on after the GET that follows it; then it is the
    // newest connection, on a stream of its own, and what it is given must not come on another.
    let isNamed = method === 'POST' || lastEventId !== undefined;
    return within(20_000, new Promise((resolve, reject) => {
      const parser = new SseParser();
      // Half of the streams come over connections that carried others before.
      const request = http.request(this.url, { method, headers, agent: this.random(2) ? this.agent : false }, response => {
        const isStream = response.headers['content-type']?.startsWith('text/event-stream');
        if (response.statusCode !== 200 || !isStream) {
          request.destroy();
          return reject(new Error(`${method} got ${response.statusCode} ${response.headers['content-type']}`));
        }
        const cut = () => {
          this.cuts += 1;
          left = -1;
          if (this.random(2)) response.socket.resetAndDestroy();
          else request.destroy();
          resolve();
        };
        response.on('data', data => {
          if (left < 0) return;
          let goOn = true;
          parser.feed(data.subarray(0, isNamed ? Math.min(left, data.length) : data.length).toString(), event => {
            goOn = goOn && see(event);
            isNamed = isNamed || event.id !== undefined;
          });
          if (isNamed) left -= data.length;
          if (left <= 0 || !goOn) cut();
        });
        response.on('error', () => {});
        response.on('close', resolve);
      });
      request.on('error', error => (left < 0 ? resolve() : reject(error)));
      request.end(body);
    }), `${method} of a stream`);
  }

  /** Reads the standalone stream until event `EVENTS`, however often it is cut. `ready` is called at the first ID. */
  async listen(ready) {
    const seen = [];
    let last;
    while (seen.length < EVENTS) {
      await this.exchange('GET', last, undefined, event => {
        if (event.id) last = event.id;
        if (last) ready();
        if (event.data !== '') seen.push(JSON.parse(event.data).params.data);
        return seen.length < EVENTS;
      });
    }
    equal(seen, range(1, EVENTS), 'events of the standalone stream');
  }

  /** Calls a tool and fetches everything that belongs to the call. */
  async call(id) {
    const seen = [];
    let last;
    const body = JSON.stringify({
      jsonrpc: '2.0', id, method: 'tools/call',
      params: { name: 'test_progress_stream', arguments: { count: PROGRESS, interval_ms: 5 }, _meta: { progressToken: id } },
    });
    let isDone = false;
    while (!isDone) {
      await this.exchange(last === undefined ? 'POST' : 'GET', last, last === undefined ? body : undefined, event => {
        if (event.id) last = event.id;
        if (event.data === '') return true;
        const message = JSON.parse(event.data);
        check(!isDone, `nothing comes behind the result: ${event.data}`);
        isDone = message.method === undefined;
        seen.push(isDone ? [message.id, message.result?.content?.[0]?.text] : [message.params.progressToken, message.params.progress]);
        return true;
      });
      if (last === undefined && !isDone) {
        // Cut before there was an ID: nobody can come back to that stream. Call once more, with an ID of its own.
        this.again += 1;
        return this.call(id + 1000);
      }
    }
    equal(seen, [...range(1, PROGRESS).map(n => [id, n]), [id, `done ${PROGRESS}`]], `messages of call ${id}`);
  }
}

/** Publishes `EVENTS` events to a session, in bursts. */
async function publish(admin, session, random) {
  const agent = new http.Agent({ keepAlive: true });
  for (const n of range(1, EVENTS)) {
    const body = JSON.stringify({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: n } });
    const { status, text } = await send(`${admin}/publish?session=${encodeURIComponent(session)}`, { method: 'POST', agent }, body);
    check(status < 300, `publish: ${status} ${text}`);
    if (random(4) === 0) await sleep(random(60));
  }
  agent.destroy();
}

/** All clients at once behind one proxy. */
async function trial(url, admin) {
  const random = randomOf(0);
  const clients = range(1, CLIENTS).map(n => new Client(url, randomOf(n)));
  await Promise.all(clients.map(client => client.open()));
  await Promise.all(clients.map(async client => {
    let listening;
    const first = new Promise(resolve => { listening = resolve; });
    const calls = (async () => {
      for (const id of range(1, CALLS)) await client.call(id);
    })();
    await Promise.all([client.listen(listening), first.then(() => publish(admin, client.session, random)), calls]);
  }));
  await Promise.all(clients.map(client => client.close()));
  const sum = key => clients.reduce((total, client) => total + client[key], 0);
  check(sum('cuts') > 3 * CLIENTS, `connections were cut: ${sum('cuts')}`);
  console.log(`   ${CLIENTS * EVENTS} events, ${CLIENTS * CALLS} calls, ${sum('cuts')} cuts, ${sum('again')} calls cut before their first ID`);
}

overallDeadline(400_000);
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});
console.log(`RINGMAIN_TEST_SEED=${seed}`);

const [up, adminPort] = [await freePort(), await freePort()];
const server = start([binary, 'serve', '--listen', `127.0.0.1:${up}`, '--admin', `127.0.0.1:${adminPort}`, '--health-path', '/health']);
const admin = `http://127.0.0.1:${adminPort}`;
try {
  await until(async () => (await statusOf(`${admin}/readyz`)) === 200, 10_000, 'the server is ready');
} catch (error) {
  console.log(`not ok the server starts: ${error.message}\n${server.output()}`);
  process.exit(1);
}
for (const name of names) {
  for (const [mode, changes] of Object.entries(proxies[name].modes)) {
    await step(`${name}, ${mode}: ${CLIENTS} clients are cut and resume, nothing is lost or doubled`, async () => {
      const home = join(directory, `${name}-${Object.keys(proxies[name].modes).indexOf(mode)}`);
      mkdirSync(home);
      const port = await freePort();
      const file = join(home, 'configuration');
      writeFileSync(file, proxies[name].file(replace(documented(name), changes), port, up, home));
      const proxy = start(proxies[name].command(file, home, port));
      try {
        await until(async () => (await statusOf(`http://127.0.0.1:${port}/health`)) === 200, 15_000, `${name} is ready`);
        await trial(`http://127.0.0.1:${port}/mcp`, admin);
      } catch (error) {
        console.error(proxy.output().slice(-4000));
        throw error;
      } finally {
        await proxy.stop();
      }
    }, 90_000);
  }
}
await server.stop();
finish();
