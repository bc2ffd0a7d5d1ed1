import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { LogEntry } from '../disk/block-device.js';
import { kindOfFile, type Contents } from './contents.js';

const execute = promisify(execFile);
const blockBytes = 4096;
const maxOutputBytes = 256 * 2 ** 20;

/**
 * What the device was told to write, by what the blocks are when all is done. `changed`: files with content that the old image
 * has not. `rewritten`: files with content that it has. `records`: other files that are still there. `passing`: blocks that
 * nothing uses any more, which held files that came and went. `journal`, `directories` and `tables` (bitmaps, inodes, extents,
 * attributes, the superblock) are the filesystem's own.
 */
export interface WornBytes {
  readonly changed: number;
  readonly rewritten: number;
  readonly records: number;
  readonly passing: number;
  readonly directories: number;
  readonly tables: number;
  readonly journal: number;
}

export type BlockKind = keyof WornBytes;

/** Runs of blocks [from, to] of one kind; `file` is an index into the files of a map. */
interface Extent {
  readonly from: number;
  readonly to: number;
  readonly kind: BlockKind | 'file';
  readonly file: number;
}

/** Where everything is on an ext4 filesystem. */
export interface BlockMap {
  readonly extents: readonly Extent[];
  readonly files: readonly Buffer[];
}

/** Reads what `dumpe2fs` says of free blocks. */
export function parseFreeBlocks(text: string): Extent[] {
  return [...text.matchAll(/^ {2}Free blocks: (.+)$/gm)].flatMap(([, list = '']) => list.split(', ').map((range): Extent => {
    const [from = '0', to = from] = range.split('-');
    return { from: Number(from), to: Number(to), kind: 'passing', file: -1 };
  }));
}

/** Reads what `debugfs -R 'blocks <8>'` says of the journal. */
export function parseJournalBlocks(text: string): Extent[] {
  const extents: { from: number; to: number; kind: 'journal'; file: number }[] = [];
  for (const word of text.trim().split(/\s+/)) {
    const block = Number(word);
    const last = extents.at(-1);
    if (last?.to === block - 1) last.to = block;
    else extents.push({ from: block, to: block, kind: 'journal', file: -1 });
  }
  return extents;
}

/** Reads what `filefrag -e -b4096` says of files or (with `kind`) directories. Paths are latin1, which keeps any byte. */
export function parseFileExtents(text: string, kind: 'file' | 'directories', firstFile: number): BlockMap {
  const files: Buffer[] = [];
  const extents: Extent[] = [];
  // A path may hold anything, line ends too.
  for (const part of text.split(/^File size of /m).slice(1)) {
    const [, path = ''] = /^([^]*?) is \d+ \(\d+ blocks? of \d+ bytes\)\n/.exec(part) ?? [];
    const file = firstFile + files.push(Buffer.from(path, 'latin1')) - 1;
    for (const [, from, to] of part.matchAll(/^ *\d+: +\d+\.\. +\d+: +(\d+)\.\. +(\d+):/gm)) extents.push({ from: Number(from), to: Number(to), kind, file });
  }
  return { extents, files };
}

async function output(file: string, words: readonly string[]): Promise<string> {
  return (await execute(file, [...words], { maxBuffer: maxOutputBytes, encoding: 'latin1' })).stdout;
}

/** What of ext4 is known while it is not mounted: its journal and what is free. `device` is attached. */
export async function mapTables(device: string): Promise<Extent[]> {
  return [...parseFreeBlocks(await output('dumpe2fs', [device])), ...parseJournalBlocks(await output('debugfs', ['-R', 'blocks <8>', device]))];
}

/** Where the files and directories below a mounted filesystem's root are. */
export async function mapFiles(mountPoint: string): Promise<BlockMap> {
  const list = (type: string): Promise<string> => output('sh', ['-c', `find "$1" -xdev -type ${type} -print0 | xargs -0 -r filefrag -e -b4096`, 'sh', mountPoint]);
  const files = parseFileExtents(await list('f'), 'file', 0);
  const directories = parseFileExtents(await list('d'), 'directories', files.files.length);
  return { extents: [...files.extents, ...directories.extents], files: [...files.files, ...directories.files] };
}

/** Tells of each block what it is; what no extent holds is the filesystem's tables. */
class BlockIndex {
  readonly #extents: readonly Extent[];

  constructor(extents: readonly Extent[]) {
    this.#extents = [...extents].sort((a, b) => a.from - b.from);
  }

  find(block: number): Extent | undefined {
    let low = 0;
    let high = this.#extents.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#extents[middle]?.from ?? 0) <= block) low = middle + 1;
      else high = middle;
    }
    const extent = this.#extents[low - 1];
    return extent !== undefined && block <= extent.to ? extent : undefined;
  }
}

/** Sorts every byte of every recorded write. The filesystem is mounted, so that files can be read. */
export async function sortWrites(log: readonly LogEntry[], tables: readonly Extent[], map: BlockMap, contents: Contents): Promise<WornBytes> {
  const index = new BlockIndex([...tables, ...map.extents]);
  const kinds = new Map<number, BlockKind>();
  const worn: Record<BlockKind, number> = { changed: 0, rewritten: 0, records: 0, passing: 0, directories: 0, tables: 0, journal: 0 };
  for (const entry of log) {
    if (entry.kind !== 'write') continue;
    for (let at = entry.offset; at < entry.offset + entry.length;) {
      const end = Math.min(entry.offset + entry.length, (Math.floor(at / blockBytes) + 1) * blockBytes);
      const extent = index.find(Math.floor(at / blockBytes));
      let kind: BlockKind = 'tables';
      if (extent?.kind === 'file') {
        kind = kinds.get(extent.file) ?? (await kindOfFile(map.files[extent.file] ?? Buffer.alloc(0), contents));
        kinds.set(extent.file, kind);
      } else if (extent !== undefined) kind = extent.kind;
      worn[kind] += end - at;
      at = end;
    }
  }
  return worn;
}
