// A server that drains and comes back while a client holds its standalone stream. The adapters are in ts_sdk1.mjs and ts_client2.mjs.
import { check, equal, finish, overallDeadline, step } from './harness.mjs';
import { Server } from './server.mjs';
import { text } from './ts_steps.mjs';

const reconnectionOptions = {
  initialReconnectionDelay: 50, maxReconnectionDelay: 200, reconnectionDelayGrowFactor: 1.2, maxRetries: 1000,
};
const answers = { sampling: () => ({}), elicitation: () => ({}) };

/** Calls until the server answers or says that the session is gone: what an application does. */
async function callAgain(session) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await session.call('test_simple_text', {});
    } catch (error) {
      const told = `${error?.message ?? error} ${error?.code ?? ''}`;
      if (/404|session not found/i.test(told)) return 'gone';
      if (tries > 100) throw error;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }
}

export async function runDrainSteps(binary, adapter) {
  overallDeadline(100_000);
  const server = new Server(binary);
  await server.start();
  let session = await adapter.open(server.url, answers, { reconnectionOptions });

  await step('a call in flight finishes during the drain, and the server ends with 0', async () => {
    const seen = [];
    const count = 20;
    const args = { count, interval_ms: 50 };
    const call = session.call('test_progress_stream', args, { onprogress: p => seen.push(p.progress) });
    // Its failure shows when it is awaited.
    call.catch(() => {});
    await session.messages.until(items => items.some(m => m.method === 'notifications/progress'), 10_000, 'progress');
    const ended = server.terminate();
    equal(text(await call), `done ${count}`);
    equal(seen.length, count, 'reports');
    equal(await ended, 0, 'exit code');
  }, 30_000);

  await step('the client comes back, is told that its session is gone, and starts a new one', async () => {
    await server.start();
    equal(await callAgain(session), 'gone', 'a call of the old session');
    await session.client.close().catch(() => {});
    session = await adapter.open(server.url, answers, { reconnectionOptions });
    check(/simple text/.test(text(await session.call('test_simple_text', {}))), 'a call of the new session');
    // The new standalone stream carries what belongs to no request.
    await session.call('test_trigger_tool_change', {});
    const isChange = m => m.method === 'notifications/tools/list_changed';
    await session.messages.until(items => items.some(isChange), 10_000, 'the notification on the new stream');
  }, 30_000);

  await step('an idle client does not hold up the drain', async () => {
    const began = Date.now();
    equal(await server.terminate(), 0, 'exit code');
    check(Date.now() - began < 5000, `it took ${Date.now() - began} ms`);
  }, 15_000);

  await session.client.close().catch(() => {});
  await server.stop();
  finish();
}
