// Cuts a call of @modelcontextprotocol/sdk 1.32 in the middle; its own reconnection has to bring everything, once.
// usage: node cut_sdk1.mjs URL
import { runCutSteps } from './cut_steps.mjs';
import { urlArgument } from './harness.mjs';
import { sdk1 } from './ts_sdk1.mjs';

await runCutSteps(urlArgument(), sdk1);
