import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { LinuxFs, SlottedRecord, acquireLock, discardTree, openRecord, removeTree, sealRecord, writeFileDurably } from '../../../src/atomic/index.js';

let outer = '';
let root = '';
beforeEach(() => {
  outer = mkdtempSync(join(tmpdir(), 'whittle-atomic-'));
  root = join(outer, 'root');
  mkdirSync(root);
});
afterEach(() => { rmSync(outer, { recursive: true, force: true }); });

for (const walkOnly of [false, true]) {
  describe(walkOnly ? 'walking component by component' : 'with openat2', () => {
    test('no path leaves the root or passes a link', async () => {
      const fs = await LinuxFs.open(root, { walkOnly });
      writeFileSync(join(outer, 'outside'), 'outside');
      symlinkSync('..', join(root, 'up'));
      symlinkSync('../outside', join(root, 'link'));
      mkdirSync(join(root, 'd'));
      for (const path of ['../outside', '/etc/passwd', 'd/../../outside', 'd//f', './d', 'd/', 'd/.', 'a\0b']) {
        await expect(fs.open(path, 'read')).rejects.toMatchObject({ code: 'EINVAL' });
        await expect(fs.mkdir(path)).rejects.toMatchObject({ code: 'EINVAL' });
        await expect(fs.rename('d', path)).rejects.toMatchObject({ code: 'EINVAL' });
      }
      await expect(fs.open('up/outside', 'read')).rejects.toMatchObject({ code: expect.stringMatching(/ELOOP|ENOTDIR/) as unknown });
      await expect(fs.open('link', 'read')).rejects.toMatchObject({ code: 'ELOOP' });
      await expect(fs.open('d', 'read')).rejects.toMatchObject({ code: 'EISDIR' });
      await expect(fs.unlink('up/outside')).rejects.toMatchObject({ code: expect.stringMatching(/ELOOP|ENOTDIR/) as unknown });
      await fs.setAttributes('link', { mode: 0, mtimeSec: 7, mtimeNsec: 0 });
      expect(statSync(join(outer, 'outside')).mode & 0o777).not.toBe(0);
      await fs.close();
      expect(readdirSync(outer).sort()).toEqual(['outside', 'root']);
    });

    test('trees deeper than one path can say are made and removed', async () => {
      const fs = await LinuxFs.open(root, { walkOnly });
      const parts: string[] = [];
      for (let depth = 0; depth < 60; depth++) {
        parts.push('n'.repeat(200));
        await fs.mkdir(parts.join('/'));
      }
      await fs.batch([{ op: 'putFile', path: [...parts, 'f'].join('/'), content: Buffer.from('deep'), attributes: { mode: 0o640 }, reuse: false }]);
      expect((await fs.readFile([...parts, 'f'].join('/'), 10))?.toString()).toBe('deep');
      await removeTree(fs, parts[0] ?? '');
      expect(readdirSync(root)).toEqual([]);
      await fs.close();
    });
  });
}

test('a batch stops at the first failure and says which', async () => {
  const fs = await LinuxFs.open(root);
  const put = (path: string): { op: 'putFile'; path: string; content: Buffer; attributes: object; reuse: boolean } => ({ op: 'putFile', path, content: Buffer.from(path), attributes: {}, reuse: false });
  await expect(fs.batch([put('a'), put('b'), put('b'), put('c')])).rejects.toMatchObject({ code: 'EEXIST', index: 2, path: 'b' });
  expect(readdirSync(root).sort()).toEqual(['a', 'b']);
  await fs.close();
});

test('putFile with reuse keeps equal content, and never writes to an inode with another name', async () => {
  const fs = await LinuxFs.open(root);
  const put = async (content: string): Promise<boolean | undefined> => (await fs.batch([{ op: 'putFile', path: 'f', content: Buffer.from(content), attributes: { mode: 0o600 }, reuse: true }]))[0]?.kept;
  expect([await put('one'), await put('one'), await put('two')]).toEqual([false, true, false]);
  await fs.link('f', 'other');
  expect(await put('two')).toBe(false);
  expect(readFileSync(join(root, 'other'), 'latin1')).toBe('two');
  expect((await fs.stat('f'))?.linkCount).toBe(1);
  await fs.close();
});

test('what a file looked like comes with its content, whether it fits or not, of names in any bytes and times of any sign', async () => {
  const fs = await LinuxFs.open(root);
  const latin1 = Buffer.from('d/\xe9', 'latin1');
  const times = [-1, -(2 ** 31), 0, 2 ** 31 + 5];
  const paths = ['a', 'd/b', 'd/\u00e9\u20ac', latin1];
  await fs.mkdir('d');
  await fs.batch(paths.map((path, index) => ({
    op: 'putFile', path, content: Buffer.alloc(index * 3000, index), attributes: { mode: 0o640, mtimeSec: times[index] ?? 0, mtimeNsec: index }, reuse: false,
  })));
  const stats = await fs.statMany([...paths, 'none', 'd/none']);
  expect(stats.map((stat) => stat?.mtimeSec)).toEqual([...times, undefined, undefined]);
  expect(stats[3]).toEqual(await (await fs.open(latin1, 'read')).stat());
  for (const scratch of [undefined, Buffer.alloc(100), Buffer.alloc(100_000)]) {
    const found = await fs.lookAndReadFiles([...paths, 'none', 'a/b'], 9000, scratch);
    expect(found.map((file) => file?.stat)).toEqual([...stats.slice(0, 4), undefined, undefined]);
    expect(found.map((file) => file?.content)).toEqual([0, 1, 2, 3].map((index) => Buffer.alloc(index * 3000, index) as Buffer | undefined).concat([undefined, undefined]));
    expect(await fs.readFiles(paths, 9000, scratch)).toEqual(found.slice(0, 4).map((file) => file?.content));
  }
  await expect(fs.lookAndReadFiles(paths, 8999)).rejects.toMatchObject({ code: 'EFBIG' });
  await expect(fs.lookAndReadFiles(['d'], 9000)).rejects.toMatchObject({ code: 'EISDIR' });
  await fs.close();
});

test('copies keep holes', async () => {
  const fs = await LinuxFs.open(root);
  writeFileSync(join(root, 'sparse'), 'start');
  truncateSync(join(root, 'sparse'), 20_000_000);
  writeFileSync(join(root, 'sparse'), 'end', { flag: 'a' });
  await fs.copyFile('sparse', 'copy', 0o640);
  execFileSync('cmp', [join(root, 'sparse'), join(root, 'copy')]);
  expect((await fs.stat('copy'))?.allocatedBytes).toBeLessThan(1_000_000);
  expect((await fs.stat('copy'))?.mode).toBe(0o640);
  await fs.close();
});

test('locks: shared with shared, exclusive with nobody, gone with their holder', async () => {
  const fs = await LinuxFs.open(root);
  const shared = [await fs.tryLock('l', 'shared'), await fs.tryLock('l', 'shared')];
  expect(shared.every((lock) => lock !== undefined)).toBe(true);
  expect(await fs.tryLock('l', 'exclusive')).toBeUndefined();
  await expect(acquireLock(fs, 'l', { mode: 'exclusive', waitMs: 60, what: 'it' })).rejects.toMatchObject({ code: 'STORE_BUSY' });
  for (const lock of shared) await lock?.release();
  const waiting = await acquireLock(fs, 'l', { mode: 'exclusive', waitMs: 0, what: 'it' });
  expect(await fs.tryLock('l', 'shared')).toBeUndefined();
  const soon = acquireLock(fs, 'l', { mode: 'shared', waitMs: 5000, what: 'it' });
  await waiting.release();
  await (await soon).release();
  await fs.close();
});

test('records: any change to any byte is seen', () => {
  const sealed = sealRecord(Buffer.from('payload'), 7);
  expect(openRecord(sealed)).toEqual({ generation: 7, payload: Buffer.from('payload') });
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    expect(openRecord(changed)).toBeUndefined();
    expect(openRecord(sealed.subarray(0, at))).toBeUndefined();
  }
});

test('slotted records: whatever happens to one file, the last or the last but one generation is read', async () => {
  const fs = await LinuxFs.open(root);
  const record = new SlottedRecord(fs, 'r');
  for (let generation = 1; generation <= 6; generation++) {
    await record.write(Buffer.from(String(generation)));
    for (const slot of ['a', 'b']) {
      const path = join(root, `r.${slot}`);
      const whole = await fs.readFile(`r.${slot}`, 1000);
      if (whole === undefined) continue;
      for (const spoilt of [Buffer.alloc(0), whole.subarray(0, 20), Buffer.alloc(whole.length)]) {
        writeFileSync(path, spoilt);
        const { record: found, fellBack } = await record.read();
        expect(fellBack).toBe(true);
        if (generation > 1) expect([generation, generation - 1]).toContain(Number(found?.payload.toString()));
      }
      writeFileSync(path, whole);
    }
    expect((await record.read()).record?.payload.toString()).toBe(String(generation));
  }
  await record.remove();
  expect(await record.read()).toEqual({ record: undefined, fellBack: false });
  await fs.close();
});

test('a durable write leaves no temporary file, also when it fails', async () => {
  const fs = await LinuxFs.open(root);
  await fs.mkdir('d');
  await writeFileDurably(fs, 'd/f', Buffer.from('one'), 'format');
  await writeFileDurably(fs, 'd/f', Buffer.from('two'), 'format');
  await fs.mkdir('d/g');
  await expect(writeFileDurably(fs, 'd/g', Buffer.from('x'), 'format')).rejects.toMatchObject({ code: 'EISDIR' });
  expect(readdirSync(join(root, 'd')).sort()).toEqual(['f', 'g']);
  await fs.mkdir('trash');
  await discardTree(fs, 'd', 'trash');
  await discardTree(fs, 'd', 'trash');
  expect(readdirSync(root)).toEqual(['trash']);
  expect(readdirSync(join(root, 'trash'))).toEqual([]);
  await fs.close();
});
