// Lets the conformance suite load on node 20. It imports `globSync` from `fs`, which node has from 22 on, for a command that these
// tests do not use. Loaded by `node --import`; on a newer node it does nothing.
import * as fs from 'node:fs';
import { register } from 'node:module';

if (!fs.globSync) {
  const shim = `export * from 'node:fs'; export { default } from 'node:fs';
    export function globSync() { throw new Error('fs.globSync needs node 22'); }`;
  const hooks = `const shim = ${JSON.stringify(`data:text/javascript,${encodeURIComponent(shim)}`)};
    export const resolve = (name, context, next) => name === 'fs' && context.parentURL?.includes('/conformance/dist/')
      ? { url: shim, shortCircuit: true } : next(name, context);`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}
