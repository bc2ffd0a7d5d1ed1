import { expect, test } from '@jest/globals';
import { main } from './main.js';

test.each([
  [['--harness', 'syscalls', '--break', 'image.name'], 'the harness syscalls cannot take a barrier out'],
  [['--harness', 'disk', '--break', 'image.name'], 'the harness disk has no barrier "image.name"; it has every syncfs, every fsync'],
  [['--harness', 'sim', '--break', 'no such thing'], 'the harness sim has no barrier "no such thing"; it has root.name'],
  [['--break', 'image.name'], '--break needs --harness'],
  [['--harness', 'sim', '--part', '1/2'], 'the harness sim draws its states: it has no --part and no --record'],
  [['--harness', 'syscalls', '--part', '3/2'], '--part takes a share such as 2/5, not "3/2"'],
  [['--harness', 'syscalls', '--part', '0/2'], '--part takes a share such as 2/5, not "0/2"'],
])('%j is refused rather than run as if it had done what was asked', async (words, said) => {
  await expect(main(words)).rejects.toThrow(said);
});
