// A server of one's own: started, drained and started again on the same port.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { within } from './harness.mjs';

export class Server {
  #binary;
  #port;
  #process;
  #options;

  /** `options`: what the command line has besides the address. */
  constructor(binary, options = []) {
    this.#binary = binary;
    this.#options = options;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}/mcp`;
  }

  /** Starts it, on the port that it had before, and waits until it listens. */
  async start() {
    if (!this.#port) {
      const probe = createServer().listen(0, '127.0.0.1');
      await once(probe, 'listening');
      this.#port = probe.address().port;
      probe.close();
      await once(probe, 'close');
    }
    const options = ['--listen', `127.0.0.1:${this.#port}`, ...this.#options];
    this.#process = spawn(this.#binary, ['serve', ...options], { stdio: 'ignore' });
    const deadline = Date.now() + 15_000;
    for (;;) {
      const answer = await fetch(this.url, { signal: AbortSignal.timeout(2000) }).catch(() => undefined);
      await answer?.body?.cancel();
      if (answer) return;
      if (this.#process.exitCode !== null || Date.now() > deadline) throw new Error('the server does not answer');
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  /** Asks it to drain, and returns its exit code. */
  async terminate() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    const [code] = await within(20_000, ended, 'the end of the drain');
    return code;
  }

  /** Ends it, whatever it does. */
  async stop() {
    if (this.#process && this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, 'exit');
      this.#process.kill('SIGKILL');
      await ended;
    }
  }
}
