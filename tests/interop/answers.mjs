// Waits until a server answers HTTP, with a deadline; gives up at once when its process ends.
// usage: node answers.mjs URL [PID]
import { setTimeout as pause } from 'node:timers/promises';

const [url, pid] = process.argv.slice(2);
const deadline = Date.now() + 15_000;

function isAlive() {
  try {
    return pid === undefined || process.kill(Number(pid), 0);
  } catch {
    return false;
  }
}

for (;;) {
  try {
    // Any answer will do: a GET without a session is refused, and that is an answer.
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    await response.body?.cancel();
    process.exit(0);
  } catch (error) {
    if (!isAlive()) {
      console.error(`the server (process ${pid}) ended before it answered`);
      process.exit(1);
    }
    if (Date.now() > deadline) {
      console.error(`${url} does not answer: ${error.cause ?? error}`);
      process.exit(1);
    }
    // There is no event to wait for: a port that is not open yet says nothing when it opens.
    await pause(20);
  }
}
