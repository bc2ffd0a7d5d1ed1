import { spawn } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { noise } from '../../support/images.js';
import { testUnlessWanting } from '../../support/tools.js';
import { until } from '../../support/until.js';
import { BlockDevice, type LogEntry } from './block-device.js';
import { runDisks } from './campaign.js';
import { crashStates, isTornWithinBlocks, piecesOf, sectorBytes, seeded, writesUnderWay } from './crash-states.js';
import { filesystems, makeFilesystem } from './filesystems.js';
import { KernelLog } from './kernel-log.js';
import { barriers, wantingForHarness, withoutBarrier } from './index.js';

jest.setTimeout(900_000);

const onDisk = testUnlessWanting(wantingForHarness());
const isCi = process.env['CI'] === 'true';

onDisk('no crash state of ext4, xfs or btrfs breaks a promise', async () => {
  const results = await runDisks({ states: isCi ? 3000 : 150, seed: 1, filesystems });
  expect(results.flatMap(({ violations }) => violations)).toEqual([]);
  const states = results.reduce((sum, result) => sum + result.states, 0);
  expect(states).toBeGreaterThanOrEqual(isCi ? 3000 : 150);
  // What cannot be mounted proves nothing: nearly all can. What a disk leaves that writes 4 KiB in one step is sound.
  const unmountable = results.flatMap((result) => result.unmountable);
  expect(unmountable.length).toBeLessThan(states / 20);
  expect(unmountable.filter(({ isTorn, reason }) => !isTorn && /checksum|CRC|corrupt/i.test(reason))).toEqual([]);
  for (const { secondCuts, filesystem, scenario, writes, flushes } of results) expect({ filesystem, scenario, secondCuts, recorded: writes > 0 && flushes > 0 }).toMatchObject({ recorded: true });
});

onDisk.each(barriers)('without $name a crash state is found that breaks a promise', async ({ systemCalls }) => {
  const results = await withoutBarrier(systemCalls, { states: 300, seed: 1, signal: new AbortController().signal });
  expect(results.flatMap(({ violations }) => violations)).not.toEqual([]);
});

let device: BlockDevice | undefined;

afterEach(async () => {
  await device?.close();
  device = undefined;
});

onDisk('the block device shows exactly the writes that a state keeps', async () => {
  const sizeBytes = 2 ** 20;
  device = await BlockDevice.start(sizeBytes);
  const path = await device.attach();
  const model: { offset: number; data: Buffer }[] = [];
  await device.record('r');
  const file = await open(path, 'r+');
  for (let at = 0; at < 12; at++) {
    const data = noise(4096 * (1 + (at % 3)), at);
    const offset = ((at * 7) % 20) * 4096;
    await file.write(data, 0, data.length, offset);
    await file.sync();
    model.push({ offset, data });
  }
  await file.close();
  await device.detach();
  await device.stop();
  const log = await device.log('r');
  const writes = log.flatMap((entry, index) => (entry.kind === 'write' ? [{ ...entry, index }] : []));
  expect(log.filter((entry) => entry.kind === 'flush').length).toBeGreaterThanOrEqual(12);
  expect(writes.reduce((sum, { length }) => sum + length, 0)).toBe(model.reduce((sum, { data }) => sum + data.length, 0));
  const random = seeded(7);
  for (const state of crashStates(log, 40, random)) {
    const { count, pieces } = piecesOf(log, state);
    await device.become('r', count, pieces);
    const expected = Buffer.alloc(sizeBytes);
    const source = Buffer.alloc(sizeBytes);
    // The kernel may split a write; what it writes at an offset is what the latest write there wrote.
    for (const { index, offset, length } of writes) {
      const whole = model.find((each, at) => each.offset <= offset && offset + length <= each.offset + each.data.length && at >= modelIndexOf(log, index));
      source.set(whole?.data.subarray(offset - whole.offset, offset - whole.offset + length) ?? [], offset);
      const kept = index < count ? [{ from: 0, to: length / sectorBytes }] : pieces.filter((piece) => piece.index === index);
      for (const { from, to } of kept) source.copy(expected, offset + from * sectorBytes, offset + from * sectorBytes, offset + to * sectorBytes);
    }
    const shown = await readDevice(device, sizeBytes);
    expect(shown.equals(expected)).toBe(true);
  }
});

/** Which of the test's writes the entry belongs to: each ended with a flush. */
function modelIndexOf(log: readonly LogEntry[], index: number): number {
  let writesBefore = 0;
  for (let at = 1; at < index; at++) if (log[at]?.kind === 'flush' && log[at - 1]?.kind === 'write') writesBefore++;
  return writesBefore;
}

async function readDevice(from: BlockDevice, sizeBytes: number): Promise<Buffer> {
  const file = await open(await from.attach(), 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(sizeBytes), 0, sizeBytes, 0);
    return buffer;
  } finally {
    await file.close();
    await from.detach();
  }
}

onDisk('a mount namespace that another program made has a copy of the mount: it is not unmounted before that is gone', async () => {
  const [filesystem] = filesystems;
  if (filesystem === undefined) throw new Error('no filesystem');
  device = await BlockDevice.start(filesystem.sizeBytes);
  await makeFilesystem(device, filesystem);
  await device.mount(filesystem.type, filesystem.options);
  const { mountPoint } = device;
  // As container engines do; it answers each line that it is told, and writes at the end.
  const holder = spawn('unshare', ['--mount', 'sh', '-c', `while read line; do echo $line; [ $line != end ] || break; done; echo late > ${mountPoint}/late`], { stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface(holder.stdout)[Symbol.asyncIterator]();
  const tell = async (line: string): Promise<void> => {
    holder.stdin.write(`${line}\n`);
    expect((await answers.next()).value).toBe(line);
  };
  await tell('begin');
  const events: string[] = [];
  const unmounted = device.unmount().then(() => { events.push('unmounted'); });
  await until(async () => !(await readFile('/proc/self/mountinfo', 'latin1')).includes(` ${mountPoint} `));
  for (let round = 0; round < 100; round++) await tell('again');
  events.push('end');
  await tell('end');
  await unmounted;
  expect(events).toEqual(['end', 'unmounted']);
  // All of it is on the disk, which nobody else writes to.
  await device.mount(filesystem.type, filesystem.options);
  expect(await readFile(join(mountPoint, 'late'), 'utf8')).toBe('late\n');
  await device.unmount();
});

onDisk('a state that cannot be mounted comes with what the kernel says of it', async () => {
  const ext4 = filesystems[0];
  if (ext4 === undefined) throw new Error('no filesystem');
  device = await BlockDevice.start(ext4.sizeBytes);
  await device.record('r');
  await makeFilesystem(device, ext4);
  await device.stop();
  const log = await device.log('r');
  const superblock = log.findLastIndex((entry) => entry.kind === 'write' && entry.offset <= 1024 && entry.offset + entry.length >= 2048);
  // What the superblock's second half should say is nowhere on the disk.
  await device.become('r', 0, log.flatMap((entry, index) => (entry.kind === 'write' && index > superblock ? [{ index, from: 0, to: entry.length / sectorBytes }] : [])).concat({ index: superblock, from: 0, to: 3 }));
  const kernel = new KernelLog();
  await expect(device.mount(ext4.type, ext4.options)).rejects.toMatchObject({ errno: 74, kernel: kernel.isHeard ? expect.arrayContaining([expect.stringContaining('invalid superblock checksum')]) : [] });
  kernel.close();
});

test('a tear within 4 KiB is told from one between them', () => {
  const log: LogEntry[] = [{ kind: 'write', offset: 0, length: 16384 }, { kind: 'write', offset: 0, length: 1024 }];
  const isTorn = (index: number, ...kept: (readonly [number, number])[]): boolean => isTornWithinBlocks(log, { cut: 2, how: 'torn', losses: [{ index, kept }] });
  expect([isTorn(0), isTorn(0, [0, 8]), isTorn(0, [8, 16], [24, 32]), isTorn(1, [0, 2])]).toEqual([false, false, false, false]);
  expect([isTorn(0, [0, 7]), isTorn(0, [8, 16], [25, 32]), isTorn(1, [0, 1]), isTorn(1, [1, 2])]).toEqual([true, true, true, true]);
});

const logEntry: fc.Arbitrary<LogEntry> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write' as const), offset: fc.nat(100).map((at) => at * sectorBytes), length: fc.integer({ min: 1, max: 40 }).map((sectors) => sectors * sectorBytes) }) },
  { weight: 2, arbitrary: fc.constant<LogEntry>({ kind: 'flush' }) },
  { weight: 1, arbitrary: fc.constant<LogEntry>({ kind: 'mark', text: 'said' }) },
);

test('a crash state loses nothing that was flushed, has nothing from after the cut, and tears at whole sectors', () => {
  fc.assert(fc.property(fc.array(logEntry, { maxLength: 40 }), fc.integer(), fc.integer({ min: 1, max: 60 }), (log, seed, count) => {
    const states = [...crashStates(log, count, seeded(seed))];
    expect(states.length).toBeGreaterThan(0);
    expect(states.length).toBeLessThanOrEqual(count);
    for (const state of states) {
      const { count: whole, pieces } = piecesOf(log, state);
      expect(log.slice(whole, state.cut).some((entry) => entry.kind === 'flush')).toBe(false);
      expect(whole === 0 || log[whole - 1]?.kind === 'flush').toBe(true);
      const underWay = new Set(writesUnderWay(log, state.cut));
      for (const { index, from, to } of pieces) {
        const entry = log[index];
        expect(underWay.has(index)).toBe(true);
        expect(from <= to && to * sectorBytes <= (entry?.kind === 'write' ? entry.length : 0)).toBe(true);
      }
    }
  }));
});

test('the same seed draws the same states, another seed others', () => {
  const log: LogEntry[] = Array.from({ length: 60 }, (_, at) => (at % 9 === 8 ? { kind: 'flush' } : { kind: 'write', offset: at * 4096, length: 4096 }));
  const draw = (seed: number): string => JSON.stringify([...crashStates(log, 50, seeded(seed))]);
  expect(draw(5)).toBe(draw(5));
  expect(draw(5)).not.toBe(draw(6));
});
