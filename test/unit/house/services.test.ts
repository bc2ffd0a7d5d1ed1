import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { projectRoot } from '../../../bench/process.js';
import { parseCommand } from '../../../src/cli/device-command.js';
import { pullCommand } from '../../../src/cli/device-pull.js';
import { exitCodes } from '../../../src/core/error-codes.js';

test('the units in the docs call the programs as they are', async () => {
  const text = await readFile(join(projectRoot, 'docs/services.md'), 'utf8');
  const commands = [...text.matchAll(/^ExecStart=\/usr\/bin\/env (\S+) (.*)$/gm)].map(([, name = '', words = '']) => [name, ...words.split(' ')]);
  expect(commands.map(([name, command]) => `${name ?? ''} ${command ?? ''}`)).toEqual(['delta-server serve', 'device pull']);
  expect(parseCommand(pullCommand, commands[1]?.slice(2) ?? []).has('delta')).toBe(true);
  expect(text).toContain(`SuccessExitStatus=${String(exitCodes.interrupted)}\n`);
});
