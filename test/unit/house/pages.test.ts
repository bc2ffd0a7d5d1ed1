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

test('the page for programs has every event of a pull with its fields, and no other', async () => {
  const read = (path: string): Promise<string> => readFile(join(projectRoot, path), 'utf8');
  const rows = [...(await read('docs/json.md')).matchAll(/^\| `([a-z]+)` \| (.*?) \| [^|]*\|$/gm)].map(([, event = '', fields = '']) => [event, fields] as const);
  const source = await read('src/applier/pull/events.ts');
  const type = source.slice(source.indexOf('export type PullEvent ='));
  const members = type.split(/(?=readonly event: ')/).slice(1);
  const name = (member: string): string => /^readonly event: '([a-z]+)'/.exec(member)?.[1] ?? '';
  expect(rows.map(([event]) => event)).toEqual(members.map(name));
  for (const [at, member] of members.entries()) {
    for (const [, field = ''] of member.matchAll(/readonly ([a-zA-Z]+)\??:/g)) if (field !== 'event') expect(`${name(member)}: ${rows[at]?.[1] ?? ''}`).toContain(`\`${field}\``);
  }
  const figures = source.slice(source.indexOf('export interface DownloadedBytes'), source.indexOf('export type PlanStep')).matchAll(/^ {2}readonly ([a-zA-Z]+):/gm);
  for (const [, field = ''] of figures) if (!['digest', 'heldBytes', 'downloadBytes'].includes(field)) expect(rows.at(-1)?.[1]).toContain(`\`${field}\``);
});
