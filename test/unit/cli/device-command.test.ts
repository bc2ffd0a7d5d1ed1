import { expect, test } from '@jest/globals';
import { commandHelp, parseCommand } from '../../../src/cli/device-command.js';
import { gcCommand } from '../../../src/cli/device-store.js';
import { pullCommand } from '../../../src/cli/device-pull.js';

test('a flag whose value is empty is refused: --root "$ROOT" without one would be the current directory', () => {
  for (const [command, argv, message] of [
    [gcCommand, ['--root', ''], 'gc: --root is empty'], [pullCommand, ['a', '--root='], 'pull: --root is empty'], [pullCommand, ['a', '--config', ''], 'pull: --config is empty'],
  ] as const) expect(() => parseCommand(command, argv)).toThrow(expect.objectContaining({ code: 'USAGE', message }));
  expect(parseCommand(gcCommand, ['--root', '.']).get('root')).toBe('.');
});

test('help begins with a sentence', () => {
  for (const command of [gcCommand, pullCommand]) expect(commandHelp(command).split('\n')[2]).toMatch(/^[A-Z].*[a-z.]$/);
});
