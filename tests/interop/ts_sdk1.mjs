// Drives the server with @modelcontextprotocol/sdk 1.32.
// usage: node ts_sdk1.mjs URL
import { pathToFileURL } from 'node:url';
import { load, urlArgument } from './harness.mjs';
import { runSteps, tap } from './ts_steps.mjs';

const { Client } = await load('ts1', '@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = await load('ts1', '@modelcontextprotocol/sdk/client/streamableHttp.js');
const { CreateMessageRequestSchema, ElicitRequestSchema } = await load('ts1', '@modelcontextprotocol/sdk/types.js');

export const sdk1 = {
  async open(url, answers, transportOptions = {}) {
    const client = new Client(
      { name: 'ringmain-interop', version: '1' },
      { capabilities: { sampling: {}, elicitation: {} } },
    );
    client.setRequestHandler(CreateMessageRequestSchema, request => answers.sampling(request.params));
    client.setRequestHandler(ElicitRequestSchema, request => answers.elicitation(request.params));
    const transport = new StreamableHTTPClientTransport(new URL(url), transportOptions);
    const messages = tap(transport);
    await client.connect(transport);
    const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
    return { client, transport, messages, call };
  },
};

if (import.meta.url === pathToFileURL(process.argv[1]).href) await runSteps(urlArgument(), sdk1);
