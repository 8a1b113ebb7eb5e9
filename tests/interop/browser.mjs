// A page in a real browser, on another origin: it initialises, calls, listens, is cut, and goes on by `fetch` with
// `Last-Event-ID`, all under CORS; and a page of an origin that is not allowed, which is refused.
//
// usage: node browser.mjs SERVER_BINARY CHROMIUM
//
// It starts the server itself, as the origins have to be named. The page says what it sees to the origin it came from;
// nothing reaches into the browser.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startCutProxy } from './cut_proxy.mjs';
import { check, equal, finish, Log, overallDeadline, range, step, within } from './harness.mjs';

const [binary, chromium] = process.argv.slice(2);
if (!chromium) {
  console.error('usage: node browser.mjs SERVER_BINARY CHROMIUM');
  process.exit(2);
}
overallDeadline(140_000);

const work = await mkdtemp(join(tmpdir(), 'ringmain-browser-'));
const html = await readFile(new URL('./browser.html', import.meta.url));
const children = [];

/** Serves the page on an origin of its own, and collects what it says. */
async function origin() {
  const said = new Log();
  const server = http.createServer((request, response) => {
    if (request.method === 'POST') {
      const parts = [];
      request.on('data', part => parts.push(part));
      request.on('end', () => {
        said.push(JSON.parse(Buffer.concat(parts)));
        response.writeHead(204).end();
      });
      return;
    }
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(html);
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  /** What the page said of `what`; an error if it said that it failed. */
  const heard = async (what, ms = 60_000) => {
    const mine = items => items.find(item => item.what === what || item.what === 'failed');
    const item = mine(await said.until(mine, ms, `the page says ${what}`));
    if (item.what !== what) throw new Error(`the page failed: ${item.detail}`);
    return item.detail;
  };
  return { url, heard, close: () => server.close() };
}

async function freePort() {
  const server = net.createServer();
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise(resolve => server.close(resolve));
  return port;
}

function start(command, args, name) {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  child.text = '';
  child.stderr.on('data', text => { child.text += text; });
  child.on('error', error => { child.text += `cannot start ${name}: ${error.message}`; });
  children.push(child);
  return child;
}

/** Opens a page in a browser of its own. */
function open(url) {
  const profile = join(work, `profile-${children.length}`);
  const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-extensions', '--mute-audio'];
  return start(chromium, [...flags, `--user-data-dir=${profile}`, url], 'the browser');
}

/** Ends a child with all that it started. */
function end(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}
process.on('exit', () => children.forEach(end));

const page = await origin();
const stranger = await origin();
const [port, admin] = [await freePort(), await freePort()];
const target = `http://127.0.0.1:${port}/mcp`;
const server = start(binary, ['serve', '--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`,
  '--cors-origin', page.url, '--allow-origin', page.url], 'the server');

async function ready() {
  for (;;) {
    try {
      return await fetch(`http://127.0.0.1:${admin}/healthz`);
    } catch {
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }
}

/** Publishes notes to the page's standalone stream. */
async function publish(session, numbers) {
  for (const number of numbers) {
    const body = JSON.stringify({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: { number } } });
    const answer = await fetch(`http://127.0.0.1:${admin}/publish?session=${session}`, { method: 'POST', body });
    equal(answer.status, 200, 'status of the publication');
  }
}

async function sessions() {
  const text = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text();
  return Number(/^ringmain_sessions (\d+)$/m.exec(text)?.[1]);
}

try {
  await within(20_000, ready(), 'the server');
  // Priming and three events, then the connection is reset.
  const cut = { upstream: target, afterEvents: 4, mode: 'rst' };
  const listening = await startCutProxy({ ...cut, match: request => request.method === 'GET' });
  const calling = await startCutProxy({ ...cut, times: 2, match: request => request.body.includes('test_progress_stream') });

  const browser = open(`${page.url}/?listen=${encodeURIComponent(listening.url)}&call=${encodeURIComponent(calling.url)}`);
  await step('a page on another origin initialises and reads the session ID', async () => {
    const { session, version, agent } = await page.heard('initialized');
    check(/^[\x21-\x7e]{16,}$/.test(session), 'a session ID');
    equal(version, '2025-11-25', 'version');
    check(agent.includes('Chrome'), agent);
  }, 90_000);
  await step('it calls a tool', async () => {
    equal(await page.heard('called'), 'This is a simple text response for testing.', 'text');
  });
  await step('its standalone stream is cut and resumed, with nothing lost and nothing twice', async () => {
    const { session } = await page.heard('listening');
    await publish(session, range(1, 5));
    await listening.until('cut', 1, 20_000);
    await publish(session, range(6, 10));
    const { numbers, cuts, resumed } = await page.heard('listened');
    equal(numbers, range(1, 10), 'numbers');
    equal({ cuts, resumed }, { cuts: 1, resumed: 1 }, 'connections');
  }, 40_000);
  await step('its call is cut twice and answered once', async () => {
    const { steps, results, cuts } = await page.heard('streamed');
    equal(steps, range(1, 12), 'steps');
    equal({ results, cuts }, { results: 1, cuts: 2 }, 'results and cuts');
  }, 40_000);
  await step('it reads a refusal, and ends its session', async () => {
    const { status, code, gone } = await page.heard('ended');
    equal({ status, code, gone }, { status: 404, code: -32001, gone: 204 }, 'answers');
    equal(await sessions(), 0, 'sessions');
  });
  end(browser);

  open(`${stranger.url}/?stranger=${encodeURIComponent(target)}`);
  await step('a page of an origin that is not allowed is refused, and the log names the setting', async () => {
    equal(await stranger.heard('refused', 80_000), { simple: 'TypeError', asked: 'TypeError', blind: 'opaque' }, 'what it saw');
    equal(await sessions(), 0, 'sessions');
    check(server.text.includes('cors_origin'), `the log names the setting: ${server.text}`);
  }, 90_000);
  listening.close();
  calling.close();
} catch (error) {
  console.log(`not ok the browser: ${error.message}`);
  process.exitCode = 1;
} finally {
  children.forEach(end);
  page.close();
  stranger.close();
  await rm(work, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }).catch(() => {});
}
finish();
