// A call through the cutting proxy, resumed by the client's own reconnection. The adapters are in ts_sdk1.mjs and ts_client2.mjs.
import { check, equal, finish, overallDeadline, range, step } from './harness.mjs';
import { startCutProxy } from './cut_proxy.mjs';
import { text } from './ts_steps.mjs';

// The server's `retry` takes precedence over the delays; the attempts do not run out.
const reconnectionOptions = {
  initialReconnectionDelay: 20, maxReconnectionDelay: 100, reconnectionDelayGrowFactor: 1.2, maxRetries: 1000,
};
const answers = { sampling: () => ({}), elicitation: () => ({}) };

const isCall = (request, count) => {
  if (request.method !== 'POST') return false;
  const { method, params } = JSON.parse(request.body);
  return method === 'tools/call' && params.name === 'test_progress_stream' && params.arguments.count === count;
};

async function withProxy(url, adapter, options, run) {
  const proxy = await startCutProxy({ upstream: url, ...options });
  let session;
  try {
    session = await adapter.open(proxy.url, answers, { reconnectionOptions });
    await run(proxy, session);
  } finally {
    await session?.transport.terminateSession().catch(() => {});
    await session?.client.close();
    proxy.close();
  }
}

/** What arrived for one call, from the transport up: progress by token, results by id. */
function wire(messages, count) {
  const progress = messages.items.filter(m => m.method === 'notifications/progress' && m.params.total === count);
  const results = messages.items.filter(m => m.result?.content?.[0]?.text === `done ${count}`);
  return { progress: progress.map(m => m.params.progress), results: results.length };
}

export async function runCutSteps(url, adapter) {
  overallDeadline(220_000);

  for (const mode of ['rst', 'fin', 'end']) {
    await step(`a call survives 5 cuts (${mode})`, async () => {
      const options = { afterEvents: 3, times: 5, mode, match: request => isCall(request, 20) };
      await withProxy(url, adapter, options, async (proxy, { client, messages, call }) => {
        const seen = [];
        const result = await call('test_progress_stream', { count: 20, interval_ms: 50 }, { onprogress: p => seen.push(p.progress) });
        equal(text(result), 'done 20');
        equal(proxy.counts.cut, 5, 'cuts');
        equal(proxy.counts.passed, 5, 'resumes');
        equal(seen, range(1, 20), 'progress');
        // A round trip, so that a message which comes twice has time to show itself.
        await client.ping();
        equal(wire(messages, 20), { progress: range(1, 20), results: 1 }, 'on the wire');
      });
    }, 40_000);
  }

  await step('a call survives cuts in the middle of an event', async () => {
    // Past the priming event and into the next ones, wherever that is.
    const options = { afterBytes: 400, times: 3, mode: 'rst', match: request => isCall(request, 20) };
    await withProxy(url, adapter, options, async (proxy, { client, messages, call }) => {
      const seen = [];
      const result = await call('test_progress_stream', { count: 20, interval_ms: 50 }, { onprogress: p => seen.push(p.progress) });
      equal(text(result), 'done 20');
      equal(proxy.counts.cut, 3, 'cuts');
      equal(seen, range(1, 20), 'progress');
      await client.ping();
      equal(wire(messages, 20), { progress: range(1, 20), results: 1 }, 'on the wire');
    });
  }, 40_000);

  await step('a result produced while the client was away is delivered on resume', async () => {
    const options = { afterEvents: 1, times: 1, mode: 'rst', match: request => isCall(request, 3), onReconnect: 'refuse' };
    await withProxy(url, adapter, options, async (proxy, { client, messages, call }) => {
      const seen = [];
      const away = call('test_progress_stream', { count: 3, interval_ms: 20 }, { onprogress: p => seen.push(p.progress) });
      // A failure shows when `away` is awaited.
      away.catch(() => {});
      await proxy.until('cut', 1, 10_000);
      // A longer call that starts later: when it is done, so is the first.
      const longer = await call('test_progress_stream', { count: 12, interval_ms: 20 }, { onprogress: () => {} });
      equal(text(longer), 'done 12');
      await proxy.until('refused', 1, 10_000);
      equal(wire(messages, 3), { progress: [], results: 0 }, 'before the resume');
      check(proxy.counts.passed === 0, 'no resume came through');
      proxy.release();
      equal(text(await away), 'done 3');
      equal(seen, [1, 2, 3], 'progress');
      await client.ping();
      equal(wire(messages, 3), { progress: [1, 2, 3], results: 1 }, 'on the wire');
      equal(wire(messages, 12), { progress: range(1, 12), results: 1 }, 'the other call, on the wire');
    });
  }, 40_000);

  finish();
}
