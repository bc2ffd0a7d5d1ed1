import { expect, test } from '@jest/globals';
import { PassThrough } from 'node:stream';
import { createProgress } from '../../../src/cli/progress.js';

/** What a terminal of 80 columns is sent while something is downloaded. */
async function shown(terminal: string): Promise<string> {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 80, rows: 24 });
  const progress = createProgress({ stream: stream as unknown as NodeJS.WriteStream, terminal, lineIntervalMs: 0 });
  progress.start('downloading', 1000);
  progress.update(500);
  progress.log('a remark');
  progress.stop();
  stream.end();
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  return text;
}

test('a terminal that cannot move its cursor gets lines', async () => {
  expect(await shown('xterm')).toContain('\u001b[');
  const text = await shown('dumb');
  expect(text).not.toContain('\u001b');
  expect(text).toContain('a remark\n');
});
