import { readFile } from 'node:fs/promises';
import { expect, test } from '@jest/globals';

test('errors of Node core, of the engine and of this file are all Errors', async () => {
  const fromCore = await readFile('/nonexistent/file').then(() => undefined, (error: unknown) => error);
  expect(fromCore).toBeInstanceOf(Error);
  expect(() => { JSON.parse('{'); }).toThrow(SyntaxError);
  let fromEngine: unknown;
  try {
    (undefined as unknown as () => void)();
  } catch (error) {
    fromEngine = error;
  }
  expect(fromEngine).toBeInstanceOf(TypeError);
  expect(fromEngine).toBeInstanceOf(Error);
  expect(new RangeError('x')).toBeInstanceOf(Error);
  expect(fromCore).not.toBeInstanceOf(TypeError);
});

test('typed arrays from outside the sandbox are typed arrays here', () => {
  expect(structuredClone(new Float64Array([1, 2]))).toBeInstanceOf(Float64Array);
  expect(Buffer.from('x')).toBeInstanceOf(Uint8Array);
});
