import { Worker } from 'node:worker_threads';
import { expect, test } from '@jest/globals';
import { deviceAddon, serverAddon } from '../../../src/core/native.js';
import { decodeSegments, encodeSegments, fileOfEachTest, type PatchCase } from '../../support/patch-codec.js';

const file = fileOfEachTest();

function pseudoRandom(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = seed;
  for (let at = 0; at < sizeBytes; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

function example(): PatchCase {
  const old = pseudoRandom(3000, 7);
  const copies = [old.subarray(0, 900), old.subarray(1000, 1800), old.subarray(300, 1300)];
  const changed = Buffer.concat([copies[0] ?? old, pseudoRandom(60, 9), copies[1] ?? old, copies[2] ?? old, Buffer.from('the end, the end, the end')]);
  for (let at = 50; at < 2700; at += 131) changed[at] = (changed[at] ?? 0) ^ 0x41;
  return { sources: [old.subarray(0, 1500), old.subarray(1500)], target: changed, ops: [[0, 0, 900], [960, 1000, 800], [1760, 300, 1000]] };
}

/** Decodes and tells how it ended: the error's code, or whether the bytes were right. */
async function outcome(streams: Buffer, one: PatchCase, profile: 'small' | 'fast'): Promise<string> {
  try {
    const [decoded] = await decodeSegments(file(), [streams], [[one]], { profile, chunkBytes: 1000 });
    return decoded?.equals(Buffer.from(one.target)) === true ? 'right' : 'other bytes';
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
}

for (const profile of ['small', 'fast'] as const) {
  test(`${profile}: flipped and missing bytes give an error or other bytes of the declared size`, async () => {
    const one = example();
    const [streams] = await encodeSegments(file(), [[one]], { profile });
    if (streams === undefined) throw new Error('no streams');
    expect(await outcome(streams, one, profile)).toBe('right');
    const seen = new Map<string, number>();
    const count = (name: string): void => { seen.set(name, (seen.get(name) ?? 0) + 1); };
    for (let at = 0; at < streams.length; at++) {
      const flipped = Buffer.from(streams);
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
      count(await outcome(flipped, one, profile));
      if (at % 5 === 0) count(await outcome(streams.subarray(0, at), one, profile));
    }
    count(await outcome(Buffer.concat([streams, Buffer.from([0])]), one, profile));
    // The last bits of a stream may be of no meaning.
    expect(seen.get('right') ?? 0).toBeLessThan(7);
    seen.delete('right');
    expect([...seen.keys()].sort()).toEqual(['DELTA_CORRUPT', 'other bytes']);
  }, 120_000);

  test(`${profile}: random streams end, within the declared size`, async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const noise = pseudoRandom(300, seed);
      const one = { ...example(), target: Buffer.alloc(100_000 + seed) };
      const streams = Buffer.concat([Buffer.from([100, 100, 100]), noise]);
      expect(['DELTA_CORRUPT', 'other bytes']).toContain(await outcome(streams, one, profile));
    }
  });
}

test('a source that is shorter than its extents is BASIS_DAMAGED', async () => {
  const one = example();
  const [streams] = await encodeSegments(file(), [[one]], { profile: 'small' });
  const decoder = new (deviceAddon().PatchDecoder)({ profile: 'small' });
  const sources = one.sources.map((source) => file().content(source));
  await file().write();
  decoder.segment(streams ?? Buffer.alloc(0));
  decoder.begin({ sources, sizeBytes: one.target.length });
  await file().truncate(1000);
  await expect(decoder.next(Buffer.alloc(8192))).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
  await expect(decoder.next(Buffer.alloc(8192))).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
});

test('what is decoded on the calling thread is the same, and so are its errors', async () => {
  const one = example();
  const [streams] = await encodeSegments(file(), [[one]], { profile: 'fast' });
  const sources = one.sources.map((source) => file().content(source));
  await file().write();
  const decoder = new (deviceAddon().PatchDecoder)({ profile: 'fast' });
  decoder.segment(streams ?? Buffer.alloc(0));
  decoder.begin({ sources, sizeBytes: one.target.length });
  const out = Buffer.alloc(one.target.length + 1);
  const running = decoder.next(out.subarray(0, 100));
  expect(() => decoder.nextNow(out)).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  await running;
  expect(decoder.nextNow(out.subarray(100))).toBe(one.target.length - 100);
  expect(out.subarray(0, -1).equals(Buffer.from(one.target))).toBe(true);
  decoder.begin({ sources: [], sizeBytes: 100_000 });
  expect(() => decoder.nextNow(Buffer.alloc(100_000))).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
});

test('a decoder refuses a second call while one runs, and calls out of order', async () => {
  const one = example();
  const [streams] = await encodeSegments(file(), [[one]], { profile: 'fast' });
  const decoder = new (deviceAddon().PatchDecoder)({ profile: 'fast' });
  expect(() => { decoder.begin({ sources: [], sizeBytes: 1 }); }).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
  const sources = one.sources.map((source) => file().content(source));
  await file().write();
  decoder.segment(streams ?? Buffer.alloc(0));
  decoder.begin({ sources, sizeBytes: one.target.length });
  const running = decoder.next(Buffer.alloc(100));
  expect(() => { decoder.close(); }).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  expect(() => decoder.next(Buffer.alloc(100))).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  expect(await running).toBe(100);
  expect(() => { decoder.begin({ sources, sizeBytes: 1 }); }).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
  decoder.close();
  decoder.close();
});

test('an encoder that is closed takes no more, and is not closed while it works', async () => {
  const encoder = new (serverAddon().PatchEncoder)({ profile: 'fast', threads: 1 });
  const target = file().content(Buffer.from('something new'));
  await file().write();
  encoder.add({ sources: [], target, ops: new Float64Array(0) });
  const running = encoder.flush();
  expect(() => { encoder.close(); }).toThrow(expect.objectContaining({ code: 'EBUSY' }));
  expect((await running).streams.length).toBeGreaterThan(0);
  encoder.close();
  encoder.close();
  expect(() => { encoder.add({ sources: [], target, ops: new Float64Array(0) }); }).toThrow(expect.objectContaining({ code: 'ECANCELED' }));
  expect(() => encoder.flush()).toThrow(expect.objectContaining({ code: 'ECANCELED' }));
});

test('the encoder refuses ops that do not fit', async () => {
  const encoder = new (serverAddon().PatchEncoder)({ profile: 'small', threads: 1 });
  const sources = [file().content(Buffer.alloc(10))];
  const target = file().content(Buffer.alloc(20));
  await file().write();
  const bad = [[0, 0, 11], [0, 5, 6], [15, 0, 6], [0, 0, 0], [0, 0], [5, 0, 5, 9, 0, 1], [0.5, 0, 1], [-1, 0, 1], [0, NaN, 1], [2 ** 53, 0, 1]];
  for (const ops of bad) expect(() => { encoder.add({ sources, target, ops: Float64Array.from(ops) }); }).toThrow(TypeError);
  encoder.add({ sources, target, ops: Float64Array.from([5, 0, 10]) });
  expect((await encoder.flush()).stats).toMatchObject({ ops: 1, copiedBytes: 10, uncoveredBytes: 10 });
});

test('works in a worker thread that is stopped while decoding', async () => {
  const one = { sources: [], target: Buffer.alloc(40_000_000), ops: [] } satisfies PatchCase;
  const [streams] = await encodeSegments(file(), [[one]], { profile: 'small' });
  const addon = new URL('../../../native/build/Release/whittle_device.node', import.meta.url).pathname;
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     const { PatchDecoder } = require(workerData.addon);
     const decoder = new PatchDecoder({ profile: 'small' });
     decoder.segment(workerData.streams);
     decoder.begin({ sources: [], sizeBytes: ${String(one.target.length)} });
     parentPort.postMessage('started');
     decoder.next(Buffer.alloc(${String(one.target.length)})).catch(() => {});`,
    { eval: true, workerData: { addon, streams } },
  );
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  expect(await worker.terminate()).toBe(1);
});
