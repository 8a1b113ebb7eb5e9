// Cuts a call of @modelcontextprotocol/client 2.4 (session era) in the middle; its own reconnection has to bring everything, once.
// usage: node cut_client2.mjs URL
import { runCutSteps } from './cut_steps.mjs';
import { urlArgument } from './harness.mjs';
import { client2 } from './ts_client2.mjs';

await runCutSteps(urlArgument(), client2);
