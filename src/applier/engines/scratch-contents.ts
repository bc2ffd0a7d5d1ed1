import { randomBytes } from 'node:crypto';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { WhittleError } from '../../core/errors.js';
import type { Basis, BasisContent } from '../../delta/basis.js';
import type { ContentPlan, LayerPlan } from '../../delta/plan.js';
import type { ContentOrigin } from '../../delta/sink.js';

/** What is known of the contents of one layer. */
interface KeptLayer {
  readonly wanted: Wanted;
  readonly copies: Map<number, ContentOrigin>;
  readonly places: Map<number, { readonly offset: number; lengthBytes: number }>;
}

/** Which contents of a layer may be asked for again: all that are written, or those of these entries. */
type Wanted = 'all' | ReadonlySet<number>;

/**
 * Contents of the target that a delta may refer to after they were sent away: in one file without a name, which takes no space
 * once it is closed or the process has ended. Contents that were copied from the basis are not kept, only where they are.
 */
export class ScratchContents {
  readonly #layers = new Map<number, KeptLayer>();
  #file: FileHandle | null = null;
  #endBytes = 0;

  /** `directory`: where the file is made, when something is kept. */
  constructor(private readonly directory: string) {}

  /** A layer begins, anew when it was there before. Of the last one, only what its own plan refers to can be asked for. */
  begin(layer: number, planned: { readonly plan: LayerPlan; readonly isLast: boolean } | null): void {
    const wanted = planned?.isLast === true ? referredTo(layer, planned.plan.content) : 'all';
    this.#layers.set(layer, { wanted, copies: new Map(), places: new Map() });
  }

  #layer(layer: number): KeptLayer {
    const kept = this.#layers.get(layer);
    if (kept === undefined) throw new WhittleError('INTERNAL', `content of layer ${String(layer)}, which was not begun`);
    return kept;
  }

  /** The content of this entry is a copy. */
  copied(layer: number, entry: number, origin: ContentOrigin): void {
    this.#layer(layer).copies.set(entry, origin);
  }

  /** Keeps the next bytes of an entry, if they can be asked for. */
  async write(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const { wanted, places } = this.#layer(layer);
    if (wanted !== 'all' && !wanted.has(entry)) return;
    this.#file ??= await this.#make();
    for (let done = 0; done < chunk.length;) done += (await this.#file.write(chunk, done, chunk.length - done, this.#endBytes + done)).bytesWritten;
    const place = places.get(entry);
    if (place === undefined) places.set(entry, { offset: this.#endBytes, lengthBytes: chunk.length });
    else place.lengthBytes += chunk.length;
    this.#endBytes += chunk.length;
  }

  /** Opens the content of an entry, here or in `basis` (null: none is known); the caller closes it and checks what it reads. */
  async open(layer: number, entry: number, basis: Basis | null): Promise<BasisContent> {
    const found = this.whereIs(layer, entry);
    if (found.from === 'basis') {
      if (basis === null) throw new WhittleError('INTERNAL', 'content of a basis that the sink was not told of');
      return basis.openContent(found.layer, found.entry, { callerVerifies: true });
    }
    const place = this.#layer(found.layer).places.get(found.entry);
    if (place === undefined || this.#file === null) throw new WhittleError('INTERNAL', `content of entry ${String(entry)} of layer ${String(layer)} was not kept`);
    return { fd: this.#file.fd, extents: [place], sizeBytes: place.lengthBytes, close: () => Promise.resolve() };
  }

  /** Where the content of an entry is, through all copies: in the basis, or with the entry of the target that was written. */
  whereIs(layer: number, entry: number): ContentOrigin {
    let found: ContentOrigin = { from: 'target', layer, entry };
    while (found.from === 'target') {
      const origin = this.#layer(found.layer).copies.get(found.entry);
      if (origin === undefined) break;
      found = origin;
    }
    return found;
  }

  async #make(): Promise<FileHandle> {
    const path = join(this.directory, `scratch-${randomBytes(8).toString('hex')}`);
    const file = await open(path, 'wx+', 0o600);
    await unlink(path);
    return file;
  }

  /** Forgets everything. The next layers may be kept again. */
  async clear(): Promise<void> {
    this.#layers.clear();
    this.#endBytes = 0;
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }
}

/** Entries of this layer that its own plan refers to, through copies too. */
function referredTo(layer: number, content: readonly ContentPlan[]): ReadonlySet<number> {
  const found = new Set<number>();
  const add = (from: 'basis' | 'target', ofLayer: number, entry: number): void => {
    if (from !== 'target' || ofLayer !== layer || found.has(entry)) return;
    found.add(entry);
    const plan = content[entry];
    if (plan?.kind === 'copy') add(plan.origin.from, plan.origin.layer, plan.origin.entry);
  };
  for (const plan of content) {
    if (plan.kind === 'copy') add(plan.origin.from, plan.origin.layer, plan.origin.entry);
    else if (plan.kind === 'patch') for (const source of plan.sources) add(source.from, source.layer, source.entry);
  }
  return found;
}
