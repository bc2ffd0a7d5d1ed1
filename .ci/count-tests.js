import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';

// Reads Jest's JSON; says what failed or skipped; its last line is "PASSED FAILED". A skipped test is a failed one here.
const results = JSON.parse(await readFile(process.argv[2], 'utf8'));
let passed = 0;
let failed = 0;
for (const suite of results.testResults) {
  const file = relative(process.cwd(), suite.name);
  if (suite.status === 'failed' && suite.assertionResults.length === 0) {
    failed += 1;
    console.log(`could not run: ${file}: ${(suite.message ?? '').split('\n').slice(0, 4).join(' ')}`);
  }
  for (const test of suite.assertionResults) {
    if (test.status === 'passed') {
      passed += 1;
      continue;
    }
    failed += 1;
    console.log(`${test.status === 'failed' ? 'failed' : `skipped (${test.status})`}: ${file}: ${test.fullName}`);
  }
}
console.log(`${passed} ${failed}`);
