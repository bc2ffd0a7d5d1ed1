import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const exitMeanings = {
  ok: 'done',
  internal: 'a defect, or a broken installation',
  usage: 'a flag or argument is wrong',
  notFound: 'what was asked for does not exist',
  denied: 'not allowed',
  network: 'a server could not be reached, or misbehaved until patience ended',
  badInput: 'an image, a delta or a layer is damaged, hostile or of a kind that is not supported',
  storage: 'the disk: no space, read-only, or it reported an error',
  busy: 'another process holds what is needed',
  interrupted: 'stopped by a signal; the same command continues',
};

/** docs/errors.md as text, from the tables of src/core/error-codes.ts. */
export function renderErrors(errorCodes, exitCodes) {
  const exits = Object.entries(exitCodes).map(([name, code]) => `| ${code} | ${name} | ${exitMeanings[name]} |`);
  const nameOf = Object.fromEntries(Object.entries(exitCodes).map(([name, code]) => [code, name]));
  const codes = Object.entries(errorCodes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, facts]) => `| \`${code}\` | ${facts.summary} | ${facts.hint} | ${facts.exitCode} (${nameOf[facts.exitCode]}) | ${facts.retryable ? 'yes' : 'no'} |`);
  return [
    '# Errors',
    '',
    '<!-- Written by `npm run docs:errors` from src/core/error-codes.ts; a test holds the two together. -->',
    '',
    'Both programs end a failure with one line on standard error that names a code, what was wrong and with what, and what',
    'to do. With `--json` the same facts are one JSON object. Codes are stable: scripts may rely on them.',
    '',
    '## Exit codes',
    '',
    '| exit code | name | means |',
    '|---|---|---|',
    ...exits,
    '',
    '## Error codes',
    '',
    '"Again" says whether the same call may succeed later without anybody changing anything.',
    '',
    '| code | what it means | what to do | exit code | again |',
    '|---|---|---|---|---|',
    ...codes,
    '',
  ].join('\n');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { errorCodes, exitCodes } = await import('../dist/core/error-codes.js');
  await writeFile(new URL('errors.md', import.meta.url), renderErrors(errorCodes, exitCodes));
}
