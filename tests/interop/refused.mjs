// Clients that are refused while they send a large body see why: 413 and 401, and not a broken pipe.
// usage: node refused.mjs SERVER_BINARY [PYTHON_WITH_HTTPX]
// Every kind of request is tried 10 times, and 100 times with RINGMAIN_TEST_LONG=1.
import { execFile } from 'node:child_process';
import http2 from 'node:http2';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { equal, finish, overallDeadline, step } from './harness.mjs';
import { Server } from './server.mjs';

const [binary, python] = process.argv.slice(2);
if (!binary) {
  console.error('usage: node refused.mjs SERVER_BINARY [PYTHON_WITH_HTTPX]');
  process.exit(2);
}
const tries = process.env.RINGMAIN_TEST_LONG ? 100 : 10;
const headers = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
const run = promisify(execFile);
const MIB = 1 << 20;

overallDeadline(120_000 + tries * 3_000);
const work = await mkdtemp(join(tmpdir(), 'ringmain-refused-'));
await writeFile(join(work, 'tokens'), 'refused-refused-refused-refused somebody\n');

/** How often each outcome came. */
async function count(outcome) {
  const outcomes = {};
  for (let i = 0; i < tries; i += 1) {
    const one = await outcome().catch(error => String(error.cause?.code ?? error.code ?? error.message));
    outcomes[one] = (outcomes[one] ?? 0) + 1;
  }
  return outcomes;
}

async function withFetch(url, body) {
  const response = await fetch(url, { method: 'POST', headers, body });
  await response.text();
  return response.status;
}

/** Over HTTP/2, on a connection of its own. */
function withHttp2(url, body) {
  return new Promise((resolve, reject) => {
    // By default a session of Node.js holds no more than 10 MB and ends the stream.
    const session = http2.connect(new URL(url).origin, { maxSessionMemory: 100 });
    session.on('error', reject);
    const request = session.request({ ...headers, ':method': 'POST', ':path': '/mcp' });
    let status;
    request.on('response', answer => (status = answer[':status']));
    request.on('error', reject);
    request.on('close', () => {
      session.destroy();
      resolve(status);
    });
    request.resume();
    request.end(body);
  });
}

async function withCurl(url, file, more) {
  const fields = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  const { stdout } = await run('curl', [
    ...['--silent', '--show-error', '--fail-with-body', '--output', '/dev/null', '--write-out', '%{http_code}'],
    ...[...fields, ...more, '--data-binary', `@${file}`, url],
  ]).catch(error => ({ stdout: error.code === 22 ? error.stdout : `curl ${error.code}` }));
  return stdout;
}

async function withHttpx(url, bytes) {
  const script = join(dirname(fileURLToPath(import.meta.url)), 'refused_py.py');
  const { stdout } = await run(python, [script, url, String(bytes), String(tries)]);
  return JSON.parse(stdout);
}

for (const [status, options] of [[413, []], [401, ['--tokens-file', join(work, 'tokens')]]]) {
  const server = new Server(binary, options);
  await server.start();
  for (const megabytes of [5, 20]) {
    const body = Buffer.alloc(megabytes * MIB, ' ');
    const file = join(work, `${megabytes}`);
    await writeFile(file, body);
    const all = { [status]: tries };
    await step(`${status} for ${megabytes} MiB, fetch`, async () => {
      equal(await count(() => withFetch(server.url, body)), all, 'outcomes');
    }, tries * 1000);
    await step(`${status} for ${megabytes} MiB, HTTP/2`, async () => {
      equal(await count(() => withHttp2(server.url, body)), all, 'outcomes');
    }, tries * 1000);
    await step(`${status} for ${megabytes} MiB, curl`, async () => {
      equal(await count(() => withCurl(server.url, file, [])), all, 'outcomes');
      equal(await count(() => withCurl(server.url, file, ['-H', 'Expect:'])), all, 'outcomes without Expect');
      equal(await count(() => withCurl(server.url, file, ['--http2-prior-knowledge'])), all, 'outcomes over HTTP/2');
    }, tries * 1000);
    if (python) {
      await step(`${status} for ${megabytes} MiB, httpx`, async () => {
        equal(await withHttpx(server.url, megabytes * MIB), all, 'outcomes');
      }, tries * 1000);
    }
  }
  await server.stop();
}
await rm(work, { recursive: true });
finish();
