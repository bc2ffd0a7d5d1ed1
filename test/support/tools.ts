import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from '@jest/globals';

/** Whether a program is on the PATH. */
export function hasTool(name: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Jest's `test` where nothing is wanting. Where something is, the tests skip and say what is wanting; in CI, where everything
 * has to be there, they fail instead.
 */
export function testUnlessWanting(wanting: readonly string[]): typeof test | typeof test.skip {
  if (wanting.length === 0) return test;
  const word = `wants ${wanting.join(', ')}`;
  if (process.env['CI'] === 'true') {
    return ((name: string) => {
      test(name, () => {
        throw new Error(word);
      });
    }) as unknown as typeof test;
  }
  return ((name: string) => test.skip(`${name} (${word})`, () => undefined)) as unknown as typeof test.skip;
}

/** Jest's `test` for tests that run the named programs: see `testUnlessWanting`. */
export function testWithTools(...names: readonly string[]): typeof test | typeof test.skip {
  return testUnlessWanting(names.filter((name) => !hasTool(name)));
}
