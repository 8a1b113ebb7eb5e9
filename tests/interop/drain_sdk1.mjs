// Drains and restarts the server under @modelcontextprotocol/sdk 1.32.
// usage: node drain_sdk1.mjs SERVER_BINARY
import { runDrainSteps } from './drain_steps.mjs';
import { sdk1 } from './ts_sdk1.mjs';

const binary = process.argv[2];
if (!binary) {
  console.error('usage: node drain_sdk1.mjs SERVER_BINARY');
  process.exit(2);
}
await runDrainSteps(binary, sdk1);
