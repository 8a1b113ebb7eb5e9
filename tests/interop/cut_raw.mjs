// Cuts and resumes without an SDK: node:http, our own SSE parser, our own client. What a careful client may rely on.
// usage: node cut_raw.mjs URL
import http from 'node:http';
import { check, equal, finish, Log, overallDeadline, range, SseParser, step, urlArgument, within } from './harness.mjs';

const url = new URL(urlArgument());
const QUIET_MS = 300; // how long a stream that should stay quiet is watched

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

/** One HTTP exchange. An SSE body is read into `events`; `cut()` resets the connection. */
class Exchange {
  events = new Log();

  constructor(method, headers, body) {
    this.request = http.request(url, { method, headers, agent: false });
    const head = deferred();
    const ended = deferred();
    this.head = head.promise;
    this.ended = ended.promise;
    this.head.catch(() => {});
    this.request.on('response', response => {
      this.isStream = response.headers['content-type']?.startsWith('text/event-stream') ?? false;
      const parser = new SseParser();
      const parts = [];
      response.setEncoding('utf8');
      response.on('data', chunk => {
        if (this.isCut) return;
        parts.push(chunk);
        if (!this.isStream) return;
        parser.feed(chunk, event => {
          if (!this.isCut) this.events.push(event);
        });
      });
      response.on('error', () => {});
      response.on('close', () => {
        this.text = parts.join('');
        ended.resolve({ complete: response.complete });
      });
      head.resolve({ status: response.statusCode, headers: response.headers });
    });
    this.request.on('error', error => {
      head.reject(error);
      ended.resolve({ complete: false });
    });
    this.request.end(body);
  }

  /** Lets nothing more in and resets the connection. */
  cut() {
    this.isCut = true;
    this.request.socket?.resetAndDestroy();
  }
}

/** A client of one session. */
class Session {
  #headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  #next = 1;

  static async open() {
    const session = new Session();
    const params = {
      protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'ringmain-interop-raw', version: '1' },
    };
    const exchange = session.post({ method: 'initialize', params });
    const { status, headers } = await within(5000, exchange.head, 'initialize');
    equal(status, 200, 'initialize');
    const { result } = await session.answer(exchange);
    equal(result.protocolVersion, '2025-11-25', 'protocol version');
    session.id = headers['mcp-session-id'];
    check(/^[\x21-\x7e]+$/.test(session.id ?? ''), `session id: ${session.id}`);
    session.#headers['mcp-session-id'] = session.id;
    session.#headers['mcp-protocol-version'] = result.protocolVersion;
    const initialized = session.post({ method: 'notifications/initialized' }, true);
    equal((await within(5000, initialized.head, 'initialized')).status, 202, 'initialized');
    return session;
  }

  post(message, isNotification = false) {
    const id = isNotification ? undefined : this.#next++;
    const exchange = new Exchange('POST', this.#headers, JSON.stringify({ jsonrpc: '2.0', id, ...message }));
    exchange.id = id;
    return exchange;
  }

  /** Starts a call of a tool; progress comes under a token of its own. */
  call(name, args) {
    const exchange = this.post({
      method: 'tools/call', params: { name, arguments: args, _meta: { progressToken: `token ${this.#next}` } },
    });
    exchange.token = `token ${exchange.id}`;
    return exchange;
  }

  get(lastEventId) {
    const headers = { ...this.#headers, accept: 'text/event-stream' };
    delete headers['content-type'];
    if (lastEventId !== undefined) headers['last-event-id'] = lastEventId;
    return new Exchange('GET', headers);
  }

  /** The message that answers `exchange`, from JSON or from its stream. */
  async answer(exchange) {
    await within(5000, exchange.head, 'response head');
    if (!exchange.isStream) {
      await within(5000, exchange.ended, 'response body');
      return JSON.parse(exchange.text);
    }
    const isAnswer = event => event.data !== '' && isResponse(JSON.parse(event.data));
    const events = await exchange.events.until(items => items.some(isAnswer), 10_000, 'response');
    return JSON.parse(events.find(isAnswer).data);
  }

  async close() {
    const exchange = new Exchange('DELETE', this.#headers);
    const { status } = await within(5000, exchange.head, 'DELETE');
    return status;
  }
}

const isResponse = message => message.id !== undefined && message.method === undefined;

async function withSession(run) {
  const session = await Session.open();
  let failure;
  try {
    return await run(session);
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    await session.close().catch(error => {
      if (!failure) throw error;
    });
  }
}

/** Waits for `count` events, cuts, and gives exactly the first `count`. */
async function takeThenCut(exchange, count) {
  const { status } = await within(5000, exchange.head, 'response head');
  equal(status, 200, 'status');
  check(exchange.isStream, 'an SSE response');
  const events = await exchange.events.until(items => items.length >= count, 10_000, `${count} events`);
  exchange.cut();
  return events.slice(0, count);
}

/** All events of a stream that ends by itself. */
async function takeAll(exchange) {
  const { status } = await within(5000, exchange.head, 'response head');
  equal(status, 200, 'status');
  check(exchange.isStream, 'an SSE response');
  const { complete } = await within(10_000, exchange.ended, 'end of the stream');
  check(complete, 'the body ended properly');
  return exchange.events.items;
}

const withData = events => events.filter(event => event.data !== '');

/** The first event of a POST's stream has an id, empty data and the default type. */
function checkPriming(event) {
  check(event.id, 'the first event has an id');
  equal(event.data, '', 'the first event is empty');
  check(event.retry === undefined || /^[0-9]+$/.test(event.retry), `retry: ${event.retry}`);
}

/** Checks one call's events with data: progress 1 to `count`, then one response "done count", nothing else. */
function checkCall(events, call, count) {
  const messages = events.map(event => {
    check(event.event === undefined || event.event === 'message', `event type ${event.event}`);
    check(event.id, `an id on ${event.data}`);
    return JSON.parse(event.data);
  });
  const progress = messages.slice(0, -1);
  equal(progress.map(m => m.params?.progress), range(1, count), 'progress');
  equal([...new Set(progress.map(m => m.params.progressToken))], count ? [call.token] : [], 'progress token');
  const response = messages.at(-1);
  equal(response.id, call.id, 'id of the response');
  equal(response.result?.content?.[0]?.text, `done ${count}`, 'result');
}

/** Ids of one stream, `tag-stream-position` in hexadecimal, and `-generation` if they prime: all different, all of one
 * stream, and the positions of what is not priming are 1, 2, 3 … from wherever they start. */
function checkIds(events) {
  const ids = events.map(event => event.id);
  equal(new Set(ids).size, ids.length, `different ids among ${ids}`);
  const parts = ids.map(id => /^([0-9a-f]{8}-[0-9a-f]+)-([0-9a-f]{16})(-[0-9a-f]+)?$/.exec(id));
  check(parts.every(part => part && part[1] === parts[0][1]), `ids of one stream: ${ids}`);
  const positions = parts.filter(part => !part[3]).map(part => parseInt(part[2], 16));
  positions.forEach((n, i) => check(i === 0 || n === positions[i - 1] + 1, `positions without a hole: ${ids}`));
}

const finished = new Map(); // what later steps resume: name → {call, events}

overallDeadline(120_000);
const session = await Session.open().catch(error => {
  console.log(`not ok initialize: ${error.message}`);
  process.exit(1);
});

await step('five cuts, five resumes', async () => {
  // An uncut call beside it tells when two more events have been published: after each cut the client stays away that long.
  const clock = session.call('test_progress_stream', { count: 40, interval_ms: 50 });
  const away = () => {
    const seen = clock.events.items.length;
    return clock.events.until(items => items.length >= seen + 2, 5000, 'events while away');
  };
  const call = session.call('test_progress_stream', { count: 20, interval_ms: 50 });
  let events = await takeThenCut(call, 3);
  checkPriming(events[0]);
  const all = [events[0], ...withData(events)];
  for (let i = 1; i < 5; i += 1) {
    await away();
    events = await takeThenCut(session.get(all.at(-1).id), 3);
    all.push(...withData(events));
  }
  await away();
  all.push(...withData(await takeAll(session.get(all.at(-1).id))));
  clock.cut();
  checkCall(all.slice(1), call, 20);
  checkIds(all);
  finished.set('cut', { call, events: all });
}, 40_000);

await step('a result produced while away is delivered on resume, then the stream ends', async () => {
  const call = session.call('test_progress_stream', { count: 3, interval_ms: 20 });
  const [priming] = await takeThenCut(call, 1);
  checkPriming(priming);
  // A longer call that starts later: when it is done, so is the first.
  const longer = session.call('test_progress_stream', { count: 12, interval_ms: 20 });
  equal((await session.answer(longer)).result.content[0].text, 'done 12');
  const events = withData(await takeAll(session.get(priming.id)));
  checkCall(events, call, 3);
  checkIds([priming, ...events]);
  finished.set('away', { call, events: [priming, ...events] });
});

await step('a call that is not cut has its response last and its stream ends', async () => {
  const call = session.call('test_progress_stream', { count: 5, interval_ms: 5 });
  const events = await takeAll(call);
  checkPriming(events[0]);
  checkCall(events.slice(1), call, 5);
  checkIds(events);
  finished.set('whole', { call, events });
});

await step('a resume starts strictly after the id it names', async () => {
  for (const [name, { events }] of finished) {
    for (let i = 0; i < events.length - 1; i += 1) {
      const again = withData(await takeAll(session.get(events[i].id)));
      equal(again.map(e => [e.id, e.data]), events.slice(i + 1).map(e => [e.id, e.data]), `${name} from event ${i}`);
    }
  }
});

await step('a resume from the last id brings nothing', async () => {
  check(finished.size > 0, 'no stream to resume');
  for (const [name, { events }] of finished) {
    const exchange = session.get(events.at(-1).id);
    const { status } = await within(5000, exchange.head, 'response head');
    // 204 and 405 tell the official clients not to come back.
    check([200, 204, 405].includes(status), `${name}: status ${status}`);
    await within(QUIET_MS, exchange.ended, 'end').catch(() => {});
    equal(withData(exchange.events.items), [], name);
    exchange.cut();
  }
});

await step('a resume replays its own stream only', async () => {
  const calls = range(4, 9).map(count => ({ count, call: session.call('test_progress_stream', { count, interval_ms: 10 }) }));
  const cuts = await Promise.all(calls.map(({ call }) => takeThenCut(call, 2)));
  const resumed = await Promise.all(cuts.map(events => takeAll(session.get(events.at(-1).id))));
  const ids = [];
  calls.forEach(({ call, count }, i) => {
    const events = [...withData(cuts[i]), ...withData(resumed[i])];
    checkCall(events, call, count);
    checkIds([cuts[i][0], ...events]);
    ids.push(cuts[i][0].id, ...events.map(event => event.id));
  });
  equal(new Set(ids).size, ids.length, 'ids are unique in the session');
});

await step('two resumes of one call: no event is lost or doubled on the later one', async () => {
  const call = session.call('test_progress_stream', { count: 10, interval_ms: 20 });
  const [priming, first] = await takeThenCut(call, 2);
  const loser = session.get(first.id);
  equal((await within(5000, loser.head, 'response head')).status, 200);
  const winner = await takeAll(session.get(first.id));
  checkCall([first, ...withData(winner)], call, 10);
  checkIds([priming, first, ...withData(winner)]);
  loser.cut();
});

await step('an id that was never given out is refused', async () => {
  const id = finished.get('whole')?.events.at(-1).id ?? 'a-1';
  const future = id.replace(/[0-9]+$/, digits => String(BigInt(digits) + 1_000_000n));
  for (const bad of ['no-such-event', future]) {
    const exchange = session.get(bad);
    const { status } = await within(5000, exchange.head, 'response head');
    exchange.cut();
    check(status >= 400 && status < 500, `${bad}: status ${status}`);
  }
});

await step("another session's id is refused", async () => {
  const events = finished.get('whole')?.events;
  check(events, 'no stream to resume');
  await withSession(async other => {
    const exchange = other.get(events[0].id);
    const { status } = await within(5000, exchange.head, 'response head');
    exchange.cut();
    check(status >= 400 && status < 500, `status ${status}`);
  });
});

await step('a notification that belongs to no request comes on the GET stream, once', async () => {
  await withSession(async other => {
    const isChange = event => event.data !== '' && JSON.parse(event.data).method === 'notifications/tools/list_changed';
    const stream = other.get();
    equal((await within(5000, stream.head, 'response head')).status, 200);
    const events = await takeAll(other.call('test_trigger_tool_change', {}));
    equal(events.filter(isChange), [], 'on the POST stream');
    const [change] = (await stream.events.until(items => items.some(isChange), 5000, 'list_changed')).filter(isChange);
    stream.cut();
    check(change.id, 'the event has an id');
    // While nobody is attached the next one is retained; the resume brings it, and it alone.
    await takeAll(other.call('test_trigger_tool_change', {}));
    const resumed = other.get(change.id);
    await resumed.events.until(items => items.some(isChange), 5000, 'list_changed after resume');
    await takeAll(other.call('test_progress_stream', { count: 1, interval_ms: 1 }));
    const after = withData(resumed.events.items);
    equal(after.filter(isChange).length, 1, 'after resume');
    check(after.every(event => event.id !== change.id), 'the id is new');
    resumed.cut();
  });
});

await step('DELETE ends open streams, and the session is gone', async () => {
  const other = await Session.open();
  const standalone = other.get();
  equal((await within(5000, standalone.head, 'response head')).status, 200);
  const call = other.call('test_progress_stream', { count: 200, interval_ms: 100 });
  await call.events.until(items => items.length >= 2, 5000, 'first progress');
  const status = await other.close();
  check(status >= 200 && status < 300, `DELETE: status ${status}`);
  await within(2000, standalone.ended, 'end of the GET stream');
  await within(2000, call.ended, 'end of the request stream');
  for (const exchange of [other.post({ method: 'ping' }), other.get()]) {
    equal((await within(5000, exchange.head, 'response head')).status, 404);
    exchange.cut();
  }
});

await step('close', async () => {
  const status = await session.close();
  check(status >= 200 && status < 300, `DELETE: status ${status}`);
});
finish();
