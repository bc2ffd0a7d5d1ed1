import { LayersBasis } from '../../../src/applier/store/basis.js';

/** The absolute path of the file that holds the content of an entry of containerd's basis. */
export function fileOf(basis: unknown, layer: number, path: string): string {
  if (!(basis instanceof LayersBasis)) throw new Error('no layers');
  const found = basis.storeLayers[layer];
  for (const [entry, { header }] of found?.meta.entries.entries() ?? []) {
    if (found !== undefined && header.path.toString() === path) return `${found.fs.root}/${found.place(entry).path.toString()}`;
  }
  throw new Error(`no ${path}`);
}
