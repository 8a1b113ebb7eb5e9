// What the interop scripts share: finding the installed packages, steps, deadlines and exact comparison.
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

const cache = join(
  process.env.RINGMAIN_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ringmain'),
  'interop',
);

/** Imports a module of a part that install.sh put into the cache, e.g. `load('ts1', '@modelcontextprotocol/sdk/types.js')`. */
export async function load(part, name) {
  const resolve = createRequire(join(cache, part, 'package.json')).resolve;
  try {
    return await import(resolve(name));
  } catch (error) {
    console.error(`${name} is not installed (run tests/interop/install.sh): ${error.message}`);
    process.exit(2);
  }
}

/** The server's URL from the command line. */
export function urlArgument() {
  const url = process.argv[2];
  if (!url) {
    console.error(`usage: node ${process.argv[1]} URL`);
    process.exit(2);
  }
  return url;
}

/** Fails unless both are deeply equal; says what came and what should have, on one line. */
export function equal(actual, expected, what = 'value') {
  if (!isDeepStrictEqual(actual, expected)) {
    throw new Error(`${what}: got ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`);
  }
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** The integers from `first` to `last`, both included. */
export const range = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** Fails unless `promise` settles within `ms`. */
export function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A list that can be waited on: `until(predicate)` resolves as soon as the list satisfies it. */
export class Log {
  items = [];
  #waiting = new Set();

  push(item) {
    this.items.push(item);
    for (const look of [...this.#waiting]) look();
  }

  until(predicate, ms, what) {
    let look;
    const seen = new Promise((resolve, reject) => {
      look = () => {
        try {
          if (predicate(this.items)) resolve(this.items);
        } catch (error) {
          reject(error);
        }
      };
      this.#waiting.add(look);
      look();
    });
    return within(ms, seen, what).finally(() => this.#waiting.delete(look));
  }
}

/** Reads SSE as the WHATWG standard says, except that events with empty data are kept: they carry ids. */
export class SseParser {
  #rest = '';
  #fields = {};

  /** Calls `onEvent({id, event, data, retry})` for each event that ends in `chunk`. */
  feed(chunk, onEvent) {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (Object.keys(this.#fields).length) onEvent({ data: '', ...this.#fields });
        this.#fields = {};
        continue;
      }
      const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      if (name === '') continue; // a comment
      if (name === 'data' && 'data' in this.#fields) this.#fields.data += `\n${value ?? ''}`;
      else this.#fields[name] = value ?? '';
    }
  }
}

let passed = 0;
let failed = 0;

/** Runs one step, prints its line. A step that fails does not stop the next one. */
export async function step(name, run, ms = 20_000) {
  try {
    await within(ms, Promise.resolve().then(run), name);
    passed += 1;
    console.log(`ok ${name}`);
    return true;
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${String(error?.message ?? error).replace(/\s*\n\s*/g, ' | ')}`);
    return false;
  }
}

/** Ends the script with what its steps say. Open streams do not hold it up. */
export function finish() {
  if (passed + failed === 0) failed = 1;
  process.exitCode = failed ? 1 : 0;
  process.stdout.write(`# ${passed} passed, ${failed} failed\n`, () => process.exit());
}

/** Ends the script with a failure when it takes longer than `ms` in all. */
export function overallDeadline(ms) {
  setTimeout(() => {
    console.log(`not ok overall deadline: the script took longer than ${ms} ms`);
    process.exit(1);
  }, ms).unref();
  process.on('unhandledRejection', error => {
    console.log(`not ok unhandled rejection: ${error?.stack ?? error}`);
    process.exit(1);
  });
}
