import fc from 'fast-check';
import { expect, test } from '@jest/globals';
import { LayerTree, nameOf, pathOf } from '../../../../src/applier/store/layer-tree.js';
import { splitHeader } from '../../../../src/tar/index.js';
import { member } from '../../../support/tars.js';

type Entry = Parameters<typeof member>[0] & { readonly name: string };

/** What every call did to the files, the error that ended it, and the tree that came of it. */
function grown(entries: readonly Entry[], spelled: (name: string, at: number) => string): unknown {
  const done: string[] = [];
  const note = (what: string) => (node: Parameters<typeof pathOf>[0]): void => { done.push(`${what} ${pathOf(node).toString()}`); };
  const tree = new LayerTree({ unlink: note('unlink'), shadow: note('shadow'), rmdir: note('rmdir'), mkdir: note('mkdir'), link: note('link'), make: note('make'), file: note('file') });
  let error: unknown = null;
  try {
    for (const [at, entry] of entries.entries()) tree.add(at, splitHeader(member({ ...entry, name: spelled(entry.name, at) }).subarray(0, 512)));
  } catch (thrown) {
    error = (thrown as { code?: unknown }).code;
  }
  const nodes = [...tree.nodes()].map((node) => [pathOf(node).toString(), node.inode.kind, node.inode.entry, node.inode.names.length, node.opaque, node.target]);
  return { done, error, nodes, places: entries.map((_, at) => { const node = tree.nodeOf(at); return node === undefined ? null : pathOf(node).toString(); }) };
}

const name = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('a', 'b') },
  { weight: 1, arbitrary: fc.constantFrom('.wh.a', '.wh.b', '.wh..wh..opq', '.wh..wh.x', '..', '.') },
);
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
const entry: fc.Arbitrary<Entry> = fc.oneof(
  path.map((at) => ({ name: at, data: Buffer.from('x') })),
  path.map((at) => ({ name: `${at}/`, type: '5' })),
  fc.tuple(path, fc.oneof(path, fc.constantFrom('.', '/'))).map(([at, link]) => ({ name: at, type: '2', link })),
  fc.tuple(path, path).map(([at, link]) => ({ name: at, type: '1', link })),
);

/** The directory was found through a link that is gone then. */
const linkToItself: Entry[] = [{ name: 'a', type: '2', link: '.' }, { name: 'a/a', data: Buffer.from('x') }, { name: 'a/b', data: Buffer.from('x') }];

test('a tree is the same however its directories are spelled', () => {
  fc.assert(fc.property(fc.array(entry, { maxLength: 8 }), (entries) => {
    // No two entries in turn name their directory by the same bytes, so that none is taken from the one before.
    expect(grown(entries, (at) => at)).toEqual(grown(entries, (at, turn) => (turn % 2 === 0 ? `./${at}` : `.//${at}`)));
  }), { numRuns: 1500, examples: [[linkToItself]] });
});

test('paths are the bytes of the tar, whatever they are', () => {
  const tree = new LayerTree(null);
  for (const [at, path] of ['d/e/plain', 'd/\xe9/x', 'd/\xe9/\xff', 'top'].entries()) tree.add(at, { ...splitHeader(member({ name: 'x', data: Buffer.from('x') }).subarray(0, 512)), path: Buffer.from(path, 'latin1') });
  const paths = [...tree.nodes()].map(pathOf);
  expect(paths.map((path) => Buffer.from(path as string).toString('latin1'))).toEqual(['d', 'd/e', 'd/e/plain', 'd/\xe9', 'd/\xe9/x', 'd/\xe9/\xff', 'top']);
  expect([...tree.nodes()].map(nameOf)).toEqual(paths.map((path) => Buffer.from(path as string).toString('latin1')));
  expect([pathOf(tree.root), nameOf(tree.root)]).toEqual(['', '']);
});
