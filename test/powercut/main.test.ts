import { expect, test } from '@jest/globals';
import { main } from './main.js';

test.each([
  [['--harness', 'syscalls', '--break', 'image.name'], 'the harness syscalls cannot take a barrier out'],
  [['--harness', 'disk', '--break', 'image.name'], 'the harness disk has no barrier "image.name"; it has every syncfs, every fsync'],
  [['--harness', 'sim', '--break', 'no such thing'], 'the harness sim has no barrier "no such thing"; it has root.name'],
  [['--break', 'image.name'], '--break needs --harness'],
])('%j is refused rather than run as if nobody missed the barrier', async (words, said) => {
  await expect(main(words)).rejects.toThrow(said);
});
