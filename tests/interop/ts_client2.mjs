// Drives the server with @modelcontextprotocol/client 2.4, held to the session era: it sends `initialize` with 2025-11-25 and never
// probes `server/discover`.
// usage: node ts_client2.mjs URL
import { pathToFileURL } from 'node:url';
import { load, urlArgument } from './harness.mjs';
import { runSteps, tap } from './ts_steps.mjs';

const { Client, StreamableHTTPClientTransport } = await load('ts2', '@modelcontextprotocol/client');

export const client2 = {
  async open(url, answers, transportOptions = {}) {
    const client = new Client(
      { name: 'ringmain-interop', version: '1' },
      {
        capabilities: { sampling: {}, elicitation: {} },
        versionNegotiation: { mode: 'legacy' },
        supportedProtocolVersions: ['2025-11-25'],
      },
    );
    client.setRequestHandler('sampling/createMessage', request => answers.sampling(request.params));
    client.setRequestHandler('elicitation/create', request => answers.elicitation(request.params));
    const transport = new StreamableHTTPClientTransport(new URL(url), transportOptions);
    const messages = tap(transport);
    await client.connect(transport);
    const call = (name, args, options) => client.callTool({ name, arguments: args }, options);
    return { client, transport, messages, call };
  },
};

if (import.meta.url === pathToFileURL(process.argv[1]).href) await runSteps(urlArgument(), client2);
