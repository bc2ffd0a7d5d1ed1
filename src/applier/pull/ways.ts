import { deltaAnnotations } from '../../delta/index.js';
import { checkImageManifest, parseManifest, type Descriptor, type Manifest } from '../../oci/index.js';
import type { HeldImage, PullStage } from '../engines/types.js';
import { fetchManifest, isPassing, spoolName, spooledBytes, type PullContext } from './context.js';
import type { ServedManifest } from './image-source.js';
import { basisFor, listDeltasTo, noneFromHere, offerBytes, readOffer, type DeltaOffer } from './offers.js';
import { searchLimits } from './search-limits.js';

/** An image that a chain passes through: its manifest, verified. */
export interface PassedImage {
  readonly served: ServedManifest;
  readonly manifest: Manifest;
}

/** One delta of a way. `makes` is the image that it leads to; null for the last, which makes the target. */
export interface DeltaStep {
  readonly offer: DeltaOffer;
  readonly makes: PassedImage | null;
}

/** How deltas lead from a stored image to the target: one of them, or a chain in the order in which they are applied. */
export interface DeltaWay {
  readonly basis: HeldImage;
  readonly steps: readonly DeltaStep[];
}

/** What a way costs: all its bytes, and those of them that an interrupted pull left here. */
export interface WayCost {
  readonly totalBytes: number;
  readonly heldBytes: number;
}

/** What is still to be downloaded of a way. */
export function left(cost: WayCost): number {
  return Math.max(0, cost.totalBytes - cost.heldBytes);
}

/** Bytes of a step: manifest, index and data of its delta, and manifest and config of the image that it passes. */
function stepBytes({ offer, makes }: DeltaStep): number {
  return offerBytes(offer) + (makes === null ? 0 : makes.served.bytes.length + makes.manifest.config.size);
}

/** Bytes of a way that its plan has already received: manifests. */
export function plannedBytes({ steps }: DeltaWay): number {
  return steps.reduce((sum, { offer, makes }) => sum + offer.manifestBytes + (makes?.served.bytes.length ?? 0), 0);
}

/** The cost of one step. Every delta of a chain is spooled in the target's stage. */
export async function stepCost(context: PullContext, stage: PullStage, step: DeltaStep): Promise<WayCost> {
  const { index, data } = step.offer;
  const heldIndex = await spooledBytes(context, stage.spool.path, spoolName('index', index.digest));
  const heldData = await spooledBytes(context, stage.spool.path, spoolName('data', data.digest));
  return { totalBytes: stepBytes(step), heldBytes: Math.min(heldIndex, index.size) + Math.min(heldData, data.size) };
}

/** The cost of a way. */
export async function wayCost(context: PullContext, stage: PullStage, way: DeltaWay): Promise<WayCost> {
  let [totalBytes, heldBytes] = [0, 0];
  for (const step of way.steps) {
    const cost = await stepCost(context, stage, step);
    totalBytes += cost.totalBytes;
    heldBytes += cost.heldBytes;
  }
  return { totalBytes, heldBytes };
}

/** What a search starts from. */
export interface SearchInput {
  /** Digest of the target's manifest, and the deltas to it. */
  readonly subject: string;
  readonly descriptors: readonly Descriptor[];
  /** Images of the store. */
  readonly candidates: readonly HeldImage[];
  /** What is left to download without any delta: dearer ways are of no interest. Infinity where there is no such way. */
  readonly layersLeft: number;
}

/** What a search found. */
export interface FoundWays {
  /** Cheapest first; all with their exact cost. */
  readonly ways: readonly (WayCost & { readonly way: DeltaWay })[];
  /** Why there is none, when there is none. */
  readonly reason: string;
}

/** An image from which deltas are known to lead to the target, and what they cost. */
interface Node {
  readonly manifestDigest: string;
  readonly basisConfig: string;
  readonly leftBytes: number;
  /** In the order in which they are applied; the first one starts from this image. */
  readonly steps: readonly DeltaStep[];
}

/**
 * Looks for the ways from stored images to the target, from the target backwards and always at the cheapest end first,
 * so that no way is missed that is cheaper than those found, within `searchLimits`. Reads lists and manifests, nothing
 * larger. Errors of the source only end the branch that they are on. Throws INTERRUPTED, BUDGET_EXCEEDED.
 */
export async function searchWays(context: PullContext, stage: PullStage, input: SearchInput): Promise<FoundWays> {
  return new WaySearch(context, stage, input).run();
}

class WaySearch {
  readonly #ways: (WayCost & { readonly way: DeltaWay })[] = [];
  readonly #frontier: Node[] = [];
  readonly #seen: Set<string>;
  /** What had been received when the search for chains began. */
  #startBytes: number;
  #bestLeft: number;
  #directRead = 0;
  #chainRead = 0;
  #explored = 0;
  #reason = noneFromHere;

  constructor(private readonly context: PullContext, private readonly stage: PullStage, private readonly input: SearchInput) {
    this.#seen = new Set([input.subject]);
    this.#bestLeft = input.layersLeft;
    this.#startBytes = context.meter.downloaded.total;
  }

  async run(): Promise<FoundWays> {
    const { subject, descriptors } = this.input;
    const target: End = { leftBytes: 0, steps: [], makes: null };
    const others = await this.#readDirect(subject, descriptors, target);
    this.#startBytes = this.context.meter.downloaded.total;
    await this.#readOthers(subject, others, target);
    for (let node = this.#next(); node !== undefined; node = this.#next()) await this.#guarded(this.#explore(node), false);
    this.#ways.sort((a, b) => left(a) - left(b));
    return { ways: this.#ways, reason: this.#reason };
  }

  /** The cheapest end that may still lead to something cheaper than what is known. */
  #next(): Node | undefined {
    if (this.#explored >= searchLimits.imagesExplored) return undefined;
    this.#frontier.sort((a, b) => b.leftBytes - a.leftBytes);
    const node = this.#frontier.pop();
    return node !== undefined && node.leftBytes < this.#bestLeft && this.#allowance() > 0 ? node : undefined;
  }

  /** Bytes that may still be spent in search of chains: never what the best way known needs of the budget. */
  #allowance(): number {
    const { meter } = this.context;
    const spent = meter.downloaded.total - this.#startBytes;
    const worth = Math.min(searchLimits.chainBytes, this.#bestLeft * searchLimits.chainShare) - spent;
    const spare = Number.isFinite(this.#bestLeft) && meter.remainingBytes >= this.#bestLeft ? meter.remainingBytes - this.#bestLeft : meter.remainingBytes;
    return Math.floor(Math.min(worth, spare));
  }

  /** Asks for the deltas to an image that the target can be made from. */
  async #explore(node: Node): Promise<void> {
    if (this.#seen.has(node.manifestDigest)) return;
    this.#seen.add(node.manifestDigest);
    this.#explored++;
    const served = await fetchManifest(this.context, node.manifestDigest, Math.min(this.#allowance(), searchLimits.manifestBytes));
    const manifest = parseManifest(served.bytes, 'an image within a chain', served.mediaType);
    checkImageManifest(manifest, 'an image within a chain');
    if (manifest.config.digest !== node.basisConfig) return;
    const end = { leftBytes: node.leftBytes + served.bytes.length + manifest.config.size, steps: node.steps, makes: { served, manifest } };
    if (end.leftBytes >= this.#bestLeft) return;
    const descriptors = await listDeltasTo(this.context, node.manifestDigest, Math.min(this.#allowance(), searchLimits.listBytes));
    await this.#readOthers(node.manifestDigest, await this.#readDirect(node.manifestDigest, descriptors, end), end);
  }

  /** Reads the deltas that are listed as starting from a stored image; returns the others. */
  async #readDirect(subject: string, descriptors: readonly Descriptor[], end: End): Promise<readonly Descriptor[]> {
    const others: Descriptor[] = [];
    for (const descriptor of descriptors.slice(0, searchLimits.referrersPerImage)) {
      const listed = descriptor.annotations?.[deltaAnnotations.basisConfig];
      // A list need not repeat what the manifests say: a delta of an unknown basis may start from here.
      const here = listed === undefined || basisFor(this.input.candidates, listed, undefined) !== undefined;
      if (!here) others.push(descriptor);
      else if (this.#directRead++ < searchLimits.directManifests) {
        const allowed = end.makes === null ? searchLimits.manifestBytes : Math.min(this.#allowance(), searchLimits.manifestBytes);
        await this.#guarded(this.#read(subject, descriptor, end, allowed));
      }
    }
    return others;
  }

  async #readOthers(subject: string, descriptors: readonly Descriptor[], end: End): Promise<void> {
    if (end.steps.length + 1 >= searchLimits.chainLength) return;
    for (const descriptor of descriptors) {
      const listed = descriptor.annotations?.[deltaAnnotations.basisManifest];
      if (listed !== undefined && this.#seen.has(listed)) continue;
      const allowed = this.#allowance();
      if (allowed < descriptor.size || end.leftBytes >= this.#bestLeft || this.#chainRead++ >= searchLimits.chainManifests) return;
      await this.#guarded(this.#read(subject, descriptor, end, Math.min(allowed, searchLimits.manifestBytes)));
    }
  }

  /** Reads one delta to the image at `end`: a whole way when it starts from a stored image, else a longer end. */
  async #read(subject: string, descriptor: Descriptor, end: End, allowedBytes: number): Promise<void> {
    const offer = await readOffer(this.context, descriptor, subject, allowedBytes);
    if (offer === null) return;
    const steps: DeltaStep[] = [{ offer, makes: end.makes }, ...end.steps];
    const basis = basisFor(this.input.candidates, offer.basisConfig, offer.basisManifest);
    if (basis !== undefined) {
      const way = { basis, steps };
      const cost = await wayCost(this.context, this.stage, way);
      this.#ways.push({ way, ...cost });
      this.#bestLeft = Math.min(this.#bestLeft, left(cost));
      return;
    }
    const leftBytes = end.leftBytes + left(await stepCost(this.context, this.stage, { offer, makes: null }));
    if (offer.basisManifest === null || steps.length >= searchLimits.chainLength || leftBytes >= this.#bestLeft || this.#seen.has(offer.basisManifest)) return;
    this.#frontier.push({ manifestDigest: offer.basisManifest, basisConfig: offer.basisConfig, leftBytes, steps });
  }

  /** One branch that fails is one way less, no more. `told`: a delta was in it that was for an image that is here. */
  async #guarded(branch: Promise<void>, told = true): Promise<void> {
    try {
      await branch;
    } catch (error) {
      if (!isPassing(error)) throw error;
      if (told) this.#reason = `the delta cannot be used: ${error.message}`;
    }
  }
}

/** The image that a delta is looked for to: what leads from it to the target. */
interface End {
  readonly leftBytes: number;
  readonly steps: readonly DeltaStep[];
  /** Null for the target itself. */
  readonly makes: PassedImage | null;
}
