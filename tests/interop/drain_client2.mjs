// Drains and restarts the server under @modelcontextprotocol/client 2.4 (session era).
// usage: node drain_client2.mjs SERVER_BINARY
import { runDrainSteps } from './drain_steps.mjs';
import { client2 } from './ts_client2.mjs';

const binary = process.argv[2];
if (!binary) {
  console.error('usage: node drain_client2.mjs SERVER_BINARY');
  process.exit(2);
}
await runDrainSteps(binary, client2);
