// The steps that every TypeScript client takes. What differs between the SDKs is in the adapter: see ts_sdk1.mjs.
import { check, equal, finish, Log, overallDeadline, range, step } from './harness.mjs';

const SAMPLED = 'the sampled text';
const ELICITED = { username: 'ringmain', email: 'ringmain@example.com' };

/** Records every message the transport hands over, before the SDK looks at it. */
export function tap(transport) {
  const messages = new Log();
  transport.onmessage = message => messages.push(message);
  return messages;
}

export const text = result => result.content?.map(block => block.text).join('');

const progressOf = messages => messages.filter(m => m.method === 'notifications/progress');

/** Runs all steps. `adapter.open(url, answers)` gives `{client, transport, messages, call}`. */
export async function runSteps(url, adapter) {
  overallDeadline(120_000);
  const asked = { sampling: [], elicitation: [] };
  const answers = {
    sampling: params => {
      asked.sampling.push(params);
      return { role: 'assistant', model: 'none', content: { type: 'text', text: SAMPLED } };
    },
    elicitation: params => {
      asked.elicitation.push(params);
      return { action: 'accept', content: ELICITED };
    },
  };

  let session;
  const connected = await step('connect', async () => {
    session = await adapter.open(url, answers);
    check(/^[\x21-\x7e]+$/.test(session.transport.sessionId ?? ''), `session id: ${session.transport.sessionId}`);
    equal(session.transport.protocolVersion, '2025-11-25', 'protocol version');
    check(session.client.getServerVersion()?.name, 'server name');
  });
  if (!connected) return finish();
  const { client, transport, messages, call } = session;

  await step('list tools', async () => {
    const { tools } = await client.listTools();
    const names = tools.map(tool => tool.name);
    equal(new Set(names).size, names.length, 'tool names are unique');
    const used = ['test_simple_text', 'test_error_handling', 'test_tool_with_progress', 'test_tool_with_logging', 'test_elicitation',
      'test_sampling', 'test_image_content', 'test_audio_content', 'test_embedded_resource', 'test_trigger_tool_change',
      'test_progress_stream'];
    equal(used.filter(name => !names.includes(name)), [], 'tools that are missing');
  });

  await step('list prompts', async () => {
    const { prompts } = await client.listPrompts();
    check(prompts.length >= 4, `${prompts.length} prompts`);
  });

  await step('list resources', async () => {
    const { resources } = await client.listResources();
    check(resources.length >= 2, `${resources.length} resources`);
  });

  await step('simple text', async () => {
    const result = await call('test_simple_text');
    equal(result.content.length, 1);
    equal(text(result), 'This is a simple text response for testing.');
    check(!result.isError, 'not an error');
  });

  await step('tool error', async () => {
    const result = await call('test_error_handling');
    equal(result.isError, true);
    equal(result.content[0].type, 'text');
  });

  await step('progress', async () => {
    const seen = [];
    await call('test_tool_with_progress', {}, { onprogress: progress => seen.push(progress) });
    equal(seen.map(p => p.progress), [0, 50, 100]);
    equal(seen.map(p => p.total), [100, 100, 100]);
  });

  await step('progress in order, exactly once', async () => {
    const before = messages.items.length;
    const seen = [];
    const result = await call('test_progress_stream', { count: 20, interval_ms: 5 }, { onprogress: p => seen.push(p.progress) });
    equal(text(result), 'done 20');
    equal(seen, range(1, 20));
    // A round trip, so that a message which comes twice has time to show itself.
    await client.ping();
    equal(progressOf(messages.items.slice(before)).map(m => m.params.progress), range(1, 20), 'on the wire');
  });

  await step('set level', async () => {
    await client.setLoggingLevel('info');
  });

  await step('logging', async () => {
    const before = messages.items.length;
    const logged = items => items.slice(before).filter(m => m.method === 'notifications/message').map(m => m.params.data);
    await call('test_tool_with_logging');
    await client.ping();
    equal(logged(messages.items), ['Tool execution started', 'Tool processing data', 'Tool execution completed']);
  });

  await step('elicitation', async () => {
    const result = await call('test_elicitation', { message: 'Who is there?' });
    check(text(result).includes('accept'), text(result));
    check(text(result).includes(ELICITED.email), text(result));
    equal(asked.elicitation.length, 1, 'asked once');
    equal(asked.elicitation[0].message, 'Who is there?');
  });

  await step('sampling', async () => {
    const result = await call('test_sampling', { prompt: 'Say something' });
    check(text(result).includes(SAMPLED), text(result));
    equal(asked.sampling.length, 1, 'asked once');
    equal(asked.sampling[0].messages[0].content.text, 'Say something');
  });

  await step('20 concurrent calls', async () => {
    const kinds = [
      async () => equal(text(await call('test_simple_text')), 'This is a simple text response for testing.'),
      async () => equal((await call('test_error_handling')).isError, true),
      async () => {
        const seen = [];
        await call('test_tool_with_progress', {}, { onprogress: p => seen.push(p.progress) });
        equal(seen, [0, 50, 100]);
      },
      async i => {
        const seen = [];
        const result = await call('test_progress_stream', { count: i + 1, interval_ms: 3 }, { onprogress: p => seen.push(p.progress) });
        equal(text(result), `done ${i + 1}`);
        equal(seen, range(1, i + 1));
      },
      async i => {
        const result = await call('test_elicitation', { message: `question ${i}` });
        check(text(result).includes('accept'), text(result));
      },
      async i => {
        const uri = `test://template/${i}/data`;
        const { contents } = await client.readResource({ uri });
        equal(JSON.parse(contents[0].text).id, String(i));
      },
      async () => equal((await call('test_image_content')).content[0].mimeType, 'image/png'),
      async () => equal((await call('test_audio_content')).content[0].mimeType, 'audio/wav'),
      async () => equal((await call('test_embedded_resource')).content[0].resource.uri, 'test://embedded-resource'),
      async i => {
        const { messages: [message] } = await client.getPrompt({
          name: 'test_prompt_with_arguments', arguments: { arg1: `a${i}`, arg2: `b${i}` },
        });
        equal(message.content.text, `Prompt with arguments: arg1='a${i}', arg2='b${i}'`);
      },
    ];
    const outcomes = await Promise.allSettled(range(0, 19).map(i => kinds[i % kinds.length](i)));
    const errors = outcomes.flatMap((o, i) => (o.status === 'rejected' ? [`call ${i}: ${o.reason?.message}`] : []));
    equal(errors, []);
  });

  await step('list_changed on the GET stream', async () => {
    const before = messages.items.length;
    const changes = items => items.slice(before).filter(m => m.method === 'notifications/tools/list_changed').length;
    await call('test_trigger_tool_change');
    await messages.until(items => changes(items) >= 1, 10_000, 'tools/list_changed');
    await client.ping();
    equal(changes(messages.items), 1, 'delivered once');
  });

  await step('read resources', async () => {
    const read = async uri => (await client.readResource({ uri })).contents[0];
    const plain = await read('test://static-text');
    equal(plain.uri, 'test://static-text');
    check(plain.text, 'text');
    check((await read('test://static-binary')).blob, 'blob');
    equal(JSON.parse((await read('test://template/123/data')).text).id, '123');
  });

  await step('unknown resource', async () => {
    const error = await client.readResource({ uri: 'test://nowhere' }).then(() => undefined, error => error);
    check([-32002, -32602].includes(error?.code), `code ${error?.code}`);
  });

  await step('subscribe and unsubscribe', async () => {
    await client.subscribeResource({ uri: 'test://watched-resource' });
    await client.unsubscribeResource({ uri: 'test://watched-resource' });
  });

  await step('get prompts', async () => {
    const prompt = async (name, args) => (await client.getPrompt({ name, arguments: args })).messages;
    check((await prompt('test_simple_prompt')).length >= 1, 'messages');
    equal((await prompt('test_prompt_with_arguments', { arg1: 'x', arg2: 'y' }))[0].content.text,
      "Prompt with arguments: arg1='x', arg2='y'");
    check((await prompt('test_prompt_with_image')).some(m => m.content.type === 'image'), 'image');
    check((await prompt('test_prompt_with_embedded_resource', { resourceUri: 'test://example' }))
      .some(m => m.content.type === 'resource'), 'resource');
  });

  await step('completion', async () => {
    const { completion } = await client.complete({
      ref: { type: 'ref/prompt', name: 'test_prompt_with_arguments' }, argument: { name: 'arg1', value: 'a' },
    });
    check(Array.isArray(completion.values), 'values');
  });

  await step('ping', () => client.ping());

  await step('terminate', async () => {
    const headers = {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-session-id': transport.sessionId,
      'mcp-protocol-version': transport.protocolVersion,
    };
    await transport.terminateSession();
    equal(transport.sessionId, undefined, 'the client let go of its session');
    const body = JSON.stringify({ jsonrpc: '2.0', id: 'after', method: 'ping' });
    const post = await fetch(url, { method: 'POST', headers, body });
    await post.body?.cancel();
    equal(post.status, 404, 'POST after DELETE');
    const get = await fetch(url, { headers: { ...headers, accept: 'text/event-stream' } });
    await get.body?.cancel();
    equal(get.status, 404, 'GET after DELETE');
  });

  await step('close', () => client.close());
  finish();
}
