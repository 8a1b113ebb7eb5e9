// Two clients of each official TypeScript package on one session, each with a standalone GET: they settle, and each message comes once.
// usage: node two_clients.mjs URL [SECONDS]       for how long messages come; 10 by default
import { check, equal, finish, load, overallDeadline, range, step, urlArgument } from './harness.mjs';
import { client2 } from './ts_client2.mjs';
import { sdk1 } from './ts_sdk1.mjs';

const url = urlArgument();
const seconds = Number(process.argv[3] ?? 10);
const answers = { sampling: () => ({}), elicitation: () => ({}) };
const transports = {
  sdk1: (await load('ts1', '@modelcontextprotocol/sdk/client/streamableHttp.js')).StreamableHTTPClientTransport,
  client2: (await load('ts2', '@modelcontextprotocol/client')).StreamableHTTPClientTransport,
};

/** A `fetch` that counts the GETs that go through it. */
function counting() {
  const counted = (input, init) => {
    if (init?.method === 'GET') counted.gets += 1;
    return fetch(input, init);
  };
  counted.gets = 0;
  return counted;
}

const isChange = message => message.method === 'notifications/tools/list_changed';

overallDeadline((seconds + 40) * 2000);
for (const [name, adapter] of Object.entries({ sdk1, client2 })) {
  await step(`two clients of ${name} on one session: one GET each, each message once in all`, async () => {
    const fetches = [counting(), counting()];
    const first = await adapter.open(url, answers, { fetch: fetches[0] });
    const second = new transports[name](new URL(url), { sessionId: first.transport.sessionId, fetch: fetches[1] });
    second.setProtocolVersion?.('2025-11-25');
    const others = [];
    second.onmessage = message => others.push(message);
    await second.start();
    // It opens its standalone stream when the server has accepted this.
    await second.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
    const began = Date.now();
    while (fetches.some(one => one.gets === 0)) {
      check(Date.now() - began < 10_000, 'both open a standalone stream');
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    const count = 4 * seconds;
    for (const _ of range(1, count)) {
      await first.call('test_trigger_tool_change', {});
      await new Promise(resolve => setTimeout(resolve, 250));
    }
    const changes = () => first.messages.items.filter(isChange).length + others.filter(isChange).length;
    const late = Date.now();
    while (changes() < count) {
      check(Date.now() - late < 5000, `all messages come: ${changes()} of ${count}`);
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    equal(changes(), count, 'messages');
    check(fetches.every(one => one.gets <= 2), `at most one reconnect each: ${fetches.map(one => one.gets)}`);
    await second.close();
    await first.client.close();
  }, (seconds + 30) * 1000);
}
finish();
