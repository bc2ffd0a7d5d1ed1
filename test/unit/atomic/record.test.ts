import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { LinuxFs, readRecord, SlottedRecord, writeRecord, type DurableFs } from '../../../src/atomic/index.js';

let dir: string;
let fs: DurableFs;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'whittle-record-'));
  fs = await LinuxFs.open(dir);
});

afterEach(async () => {
  await fs.close();
  await rm(dir, { recursive: true, force: true });
});

/** The same filesystem, but reading `path` fails so many times. */
function unreadable(path: string, times: number): DurableFs {
  let left = times;
  return new Proxy(fs, {
    get(target, name) {
      if (name === 'readFile') {
        return (asked: string, maxBytes: number) => {
          if (asked === path && left-- > 0) return Promise.reject(Object.assign(new Error('EIO: read'), { code: 'EIO', errno: -5, syscall: 'read' }));
          return target.readFile(asked, maxBytes);
        };
      }
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

test('a read that fails once does not make a record damaged, one that fails again does', async () => {
  await writeRecord(fs, 'record', Buffer.from('whole'), 'image');
  expect(await readRecord(unreadable('record', 1), 'record')).toMatchObject({ payload: Buffer.from('whole') });
  expect(await readRecord(unreadable('record', 2), 'record')).toBe('damaged');
});

test('an error that passes does not cost a slotted record its newest generation when the next is written', async () => {
  await new SlottedRecord(fs, 'slots').write(Buffer.from('first'));
  const slots = new SlottedRecord(unreadable('slots.a', 1), 'slots');
  expect((await slots.read()).record?.payload.toString()).toBe('first');
  await new SlottedRecord(unreadable('slots.a', 1), 'slots').write(Buffer.from('second'));
  expect((await new SlottedRecord(fs, 'slots').read()).record).toMatchObject({ generation: 2, payload: Buffer.from('second') });
});
