import { mkdir, open, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, jest, test } from '@jest/globals';
import { noise } from '../../support/images.js';
import { testUnlessWanting } from '../../support/tools.js';
import { BlockDevice } from '../disk/block-device.js';
import { filesystems } from '../disk/filesystems.js';
import { parseFileExtents, parseFreeBlocks, parseJournalBlocks } from './blocks.js';
import { contentDigest, type Contents } from './contents.js';
import { wantingForWear } from './main.js';
import { recordWear } from './measure.js';

jest.setTimeout(300_000);

let disk: BlockDevice | undefined;

afterEach(async () => {
  await disk?.close();
  disk = undefined;
});

testUnlessWanting(wantingForWear())('every block that an update writes is sorted by what it is in the end', async () => {
  const [ext4] = filesystems;
  if (ext4 === undefined) throw new Error('no filesystem');
  const [changed, held, other, passing] = [noise(50_000, 1), noise(30_000, 2), noise(20_000, 3), noise(90_000, 4)];
  const contents: Contents = { held: new Set([contentDigest(held)]), changed: new Set([contentDigest(changed)]), changedBytes: changed.length };
  disk = await BlockDevice.start(ext4.sizeBytes);
  const root = disk.mountPoint;
  const { worn, totalBytes, flushes } = await recordWear(disk, ext4, {
    install: async () => { await writeFile(join(root, 'before'), noise(400_000, 5)); },
    update: async (record) => {
      await record();
      await mkdir(join(root, 'a folder\n(of files)'));
      for (const [name, content] of [['new', changed], ['moved', held], ['a folder\n(of files)/notes', other], ['temporary', passing]] as const) {
        const file = await open(join(root, name), 'w');
        await file.writeFile(content);
        await file.sync();
        await file.close();
      }
      await unlink(join(root, 'temporary'));
    },
  }, contents);
  const blocks = (bytes: number): number => Math.ceil(bytes / 4096) * 4096;
  expect(worn).toMatchObject({ changed: blocks(changed.length), rewritten: blocks(held.length), records: blocks(other.length), passing: blocks(passing.length) });
  for (const kind of ['directories', 'tables', 'journal'] as const) expect({ kind, written: worn[kind] > 0 }).toEqual({ kind, written: true });
  expect(totalBytes).toBeGreaterThan(blocks(changed.length + held.length + other.length + passing.length));
  expect(flushes).toBeGreaterThanOrEqual(4);
});

test('what the tools of ext4 say of its blocks is read', () => {
  expect(parseFreeBlocks('Free blocks:              77\nGroup 0:\n  Free blocks: 10-12, 20\n  Free inodes: 5\n  Free blocks: \n')).toEqual([
    { from: 10, to: 12, kind: 'passing', file: -1 }, { from: 20, to: 20, kind: 'passing', file: -1 },
  ]);
  expect(parseJournalBlocks('5 6 7 9 \n')).toEqual([{ from: 5, to: 7, kind: 'journal', file: -1 }, { from: 9, to: 9, kind: 'journal', file: -1 }]);
  const said = [
    'Filesystem type is: ef53', 'File size of /m/a is 4 is 5000 (2 blocks of 4096 bytes)', ' ext:     logical_offset:        physical_offset: length:   expected: flags:',
    '   0:        0..       0:       1234..      1234:      1:', '   1:        1..       1:       1300..      1300:      1:       1235: last,eof', '/m/a is 4: 2 extents found',
  ];
  expect(parseFileExtents(said.join('\n'), 'file', 3)).toEqual({
    files: [Buffer.from('/m/a is 4')], extents: [{ from: 1234, to: 1234, kind: 'file', file: 3 }, { from: 1300, to: 1300, kind: 'file', file: 3 }],
  });
});
