// Judges the results of the conformance suite: which scenarios passed, one line each.
// usage: node conformance_check.mjs REQUIREMENTS.yaml RESULTS_DIR
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const SCORED = 30;
const UNSCORED = ['server-session-lifecycle', 'json-schema-2020-12', 'server-sse-polling'];

// Checks that have to be there and be SUCCESS. Without this, server-sse-polling passes for a server that never closes the stream.
const REQUIRED_CHECKS = {
  'server-session-lifecycle': [
    'server-session-initialized-accepted', 'server-session-delete-accepted', 'server-session-terminated-returns-404',
  ],
  'server-sse-polling': ['server-sse-priming-event', 'server-sse-retry-field', 'server-sse-disconnect-resume'],
};

const [requirements, results] = process.argv.slice(2);

/** The scenarios under `server:` in the requirement set. */
function scoredScenarios() {
  const section = /^server:\n((?: {2}- .*\n)+)/m.exec(readFileSync(requirements, 'utf8'));
  return section[1].trim().split('\n').map(line => line.replace(/^\s*- /, ''));
}

/** What the suite wrote for one scenario: a folder `server-NAME-TIME` with `checks.json`. */
function checksOf(scenario) {
  const name = new RegExp(`^server-${scenario}-\\d{4}-\\d{2}-\\d{2}T`);
  const folders = existsSync(results) ? readdirSync(results).filter(folder => name.test(folder)) : [];
  if (folders.length !== 1) return undefined;
  return JSON.parse(readFileSync(join(results, folders[0], 'checks.json'), 'utf8'));
}

function whyNot(scenario) {
  const checks = checksOf(scenario);
  if (!checks) return 'it did not run';
  const failures = checks.filter(c => c.status === 'FAILURE');
  if (failures.length) return failures.map(c => `${c.id}: ${c.errorMessage ?? c.description}`).join('; ');
  if (!checks.some(c => c.status === 'SUCCESS')) return 'no check succeeded';
  for (const id of REQUIRED_CHECKS[scenario] ?? []) {
    const check = checks.find(c => c.id === id);
    if (check?.status !== 'SUCCESS') {
      return `${id}: ${check ? `${check.status} ${check.errorMessage ?? check.details?.message ?? ''}` : 'not checked'}`;
    }
  }
  return undefined;
}

function count(scenarios) {
  let passed = 0;
  for (const scenario of scenarios) {
    const why = whyNot(scenario);
    if (why === undefined) passed += 1;
    console.log(why === undefined ? `ok ${scenario}` : `not ok ${scenario}: ${why.replace(/\s*\n\s*/g, ' | ')}`);
  }
  return passed;
}

const scored = scoredScenarios();
if (scored.length !== SCORED) console.log(`not ok requirement set: ${scored.length} scored scenarios instead of ${SCORED}`);
const passedScored = count(scored);
const passedUnscored = count(UNSCORED);
console.log(`# conformance 2025-11-25: ${passedScored} of ${SCORED} scored, ${passedUnscored} of ${UNSCORED.length} unscored`);
process.exit(scored.length === SCORED && passedScored === SCORED && passedUnscored === UNSCORED.length ? 0 : 1);
