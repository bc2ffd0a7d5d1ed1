import { resized, type Change, type Disk, type DiskOp, type EntryChange } from './disk.js';
import { Random } from './random.js';

const sectorBytes = 512;
/** Up to so many combinations, all of them are built. */
const exhaustiveLimit = 96;

/**
 * What became of one change that no sync had asked for: it is on the disk, it is not; of data also: some sectors are
 * (`torn`); of a directory's move between two directories: its old name is gone and the new one never came (`nowhere`).
 */
export type Fate = 'done' | 'lost' | 'torn' | 'nowhere';

/** What a file's size became when its data had not been synced: what the data that came through say, or all of it with zeros or stale bytes for what did not. */
type Rest = 'none' | 'zeros' | 'stale';

interface Pending {
  readonly seq: number;
  readonly change: Change;
  /** Of `names`: what no sync has covered yet. */
  names: readonly EntryChange[];
  /** Of data: a failed sync forgot it, no later sync writes it. */
  stuck: boolean;
}

/** One way in which the power may go: what became of each pending change. */
export interface Choice {
  readonly fates: readonly Fate[];
  readonly rest: Rest;
  readonly seed: number;
}

/** A crash state, and what was lost to get there. */
export interface CrashState {
  readonly disk: Disk;
  readonly choice: Choice;
}

/** Follows a trace from a boot on and knows at each moment what is durable, and what may be. */
export class CrashPlanner {
  readonly #durable: Disk;
  #pending: Pending[] = [];
  #seq = 0;
  /** On a journalled filesystem, changes of metadata up to this one are on the disk. */
  #floor = -1;

  /** `disk` as it was at boot; it is not changed. `lies`: syncs do nothing. */
  constructor(disk: Disk, private readonly lies = false) {
    this.#durable = disk.clone();
  }

  /** The next thing that happened. */
  follow(op: DiskOp): void {
    this.#seq++;
    switch (op.op) {
      case 'make': this.#durable.apply(op); break;
      case 'names': this.#pending.push({ seq: this.#seq, change: op, names: op.changes, stuck: false }); break;
      case 'data':
      case 'size':
      case 'attr': this.#pending.push({ seq: this.#seq, change: op, names: [], stuck: false }); break;
      case 'fsync': this.#sync((each) => 'ino' in each.change && each.change.ino === op.ino, []); break;
      case 'fsyncDir': this.#sync((each) => each.change.op === 'attr' && each.change.ino === op.ino, [op.ino]); break;
      case 'syncfs': this.#sync(() => true, null); break;
      case 'stuck':
        for (const each of this.#pending) if ('ino' in each.change && each.change.op !== 'attr' && (op.ino === null || op.ino === each.change.ino)) each.stuck = true;
        break;
      case 'mark': break;
    }
  }

  /** Makes durable what `covers` says, and names in the directories `dirs` (null: all). */
  #sync(covers: (each: Pending) => boolean, dirs: readonly number[] | null): void {
    if (this.lies) return;
    this.#pending = this.#pending.filter((each) => {
      if (each.change.op !== 'names') {
        if (each.stuck || !covers(each)) return true;
        this.#durable.apply(each.change);
        if (each.change.op !== 'data') this.#floor = each.seq;
        return false;
      }
      return this.#syncNames(each, each.change.swap, dirs);
    });
  }

  /** Whether something of it is still pending. A move between directories may be durable in one of them only. */
  #syncNames(each: Pending, swap: boolean, dirs: readonly number[] | null): boolean {
    const left = dirs === null ? [] : each.names.filter((change) => !dirs.includes(change.dir));
    if (left.length === each.names.length) return true;
    this.#floor = each.seq;
    // A swap of names exists only where it is one transaction.
    const now = swap ? each.names : each.names.filter((change) => !left.includes(change));
    this.#durable.setNames(now);
    each.names = swap ? [] : left;
    return each.names.length > 0;
  }

  /** The fates that one pending change may have. */
  #fates(each: Pending): readonly Fate[] {
    if (each.change.op === 'data') return each.change.data.length > sectorBytes ? ['lost', 'done', 'torn'] : ['lost', 'done'];
    if (each.change.op !== 'names' || !each.change.tree || each.change.swap || each.names.length < 2) return ['lost', 'done'];
    return each.names[0]?.dir === each.names[1]?.dir ? ['lost', 'done'] : ['lost', 'done', 'nowhere'];
  }

  #hasData(): boolean {
    return this.#pending.some((each) => each.change.op === 'data');
  }

  /** Crash states of this moment: all of them when there are few, else about `count`. Ends early when nothing new can come. */
  *states(count: number, random: Random): Generator<CrashState, void, undefined> {
    const fates = this.#pending.map((each) => this.#fates(each));
    const rests: readonly Rest[] = this.#hasData() ? ['none', 'zeros', 'stale'] : ['none'];
    const combinations = fates.reduce((product, each) => Math.min(product * each.length, 1e9), rests.length);
    if (combinations <= Math.min(exhaustiveLimit, count)) {
      for (let number = 0; number < combinations; number++) yield this.#state(numbered(number, fates, rests, random.seed()));
      return;
    }
    for (let drawn = 0; drawn < count; drawn++) yield this.#state(this.#draw(fates, rests, random));
  }

  /** One choice: all styles of loss are as likely, for the rare ones are those that programs forget. */
  #draw(fates: readonly (readonly Fate[])[], rests: readonly Rest[], random: Random): Choice {
    const last = fates.length - 1;
    const rest = rests[random.below(rests.length)] ?? 'none';
    const seed = random.seed();
    const style = random.below(7);
    const all = (fate: Fate): Fate[] => fates.map(() => fate);
    const pick = (at: number): Fate => fates[at]?.[random.below(fates[at].length)] ?? 'done';
    switch (style) {
      case 0: return { fates: all('lost'), rest, seed };
      case 1: {
        // One thing is lost of all.
        const out = all('done');
        const at = random.below(fates.length);
        out[at] = random.chance(0.7) ? 'lost' : pick(at);
        return { fates: out, rest, seed };
      }
      case 2: {
        // One thing alone came through.
        const out = all('lost');
        out[random.below(fates.length)] = 'done';
        return { fates: out, rest, seed };
      }
      case 3: return { fates: this.#pending.map((each) => (each.change.op === 'data' ? 'lost' : 'done')), rest, seed };
      case 4:
      case 5: return { fates: this.#journalled(random), rest, seed };
      default: {
        const likely = random.next();
        return { fates: Array.from({ length: last + 1 }, (_, at) => (random.chance(likely) ? 'done' : pick(at))), rest, seed };
      }
    }
  }

  /** Metadata up to a point of time, as a journal keeps it; data as it comes. */
  #journalled(random: Random): Fate[] {
    const metadata = this.#pending.filter((each) => each.change.op !== 'data' && each.seq > this.#floor);
    const until = metadata[random.below(metadata.length + 1)]?.seq ?? Infinity;
    const likely = [0, 1, random.next()][random.below(3)] ?? 0;
    return this.#pending.map((each) => {
      if (each.change.op !== 'data') return each.seq < until || each.seq <= this.#floor ? 'done' : 'lost';
      return random.chance(likely) ? 'done' : random.chance(0.3) && each.change.data.length > sectorBytes ? 'torn' : 'lost';
    });
  }

  /** The state that a choice makes of this moment. */
  state(choice: Choice): CrashState {
    return this.#state(choice);
  }

  #state(choice: Choice): CrashState {
    const disk = this.#durable.clone();
    const sizes = new Map<number, number>();
    this.#pending.forEach((each, at) => { applyFate(disk, each, choice.fates[at] ?? 'done', choice.seed + at, sizes); });
    if (choice.rest !== 'none') for (const [ino, sizeBytes] of sizes) fill(disk, ino, sizeBytes, choice);
    return { disk, choice };
  }

  /** What was lost, for people. */
  describe(choice: Choice): string[] {
    const lines = this.#pending.flatMap((each, at) => {
      const fate = choice.fates[at] ?? 'done';
      return fate === 'done' ? [] : [`${fate}: ${each.change.what}${each.names.length === 1 && each.change.op === 'names' && each.change.changes.length === 2 ? ' (one of its two directories was synced)' : ''}`];
    });
    return choice.rest === 'none' || lines.length === 0 ? lines : [...lines, `what was lost of files reads as ${choice.rest === 'zeros' ? 'zeros' : 'stale bytes'}`];
  }
}

function numbered(number: number, fates: readonly (readonly Fate[])[], rests: readonly Rest[], seed: number): Choice {
  let left = number;
  const digit = <T>(of: readonly T[]): T => {
    const value = of[left % of.length];
    left = Math.floor(left / of.length);
    return value as T;
  };
  const rest = digit(rests);
  return { fates: fates.map(digit), rest, seed };
}

function applyFate(disk: Disk, each: Pending, fate: Fate, seed: number, sizes: Map<number, number>): void {
  const { change } = each;
  if (change.op === 'names') {
    applyNames(disk, each, fate, change.tree && !change.swap);
    return;
  }
  if (change.op === 'data') sizes.set(change.ino, Math.max(sizes.get(change.ino) ?? 0, change.offset + change.data.length));
  if (change.op === 'size') sizes.set(change.ino, change.sizeBytes);
  if (fate === 'done') disk.apply(change);
  else if (fate === 'torn' && change.op === 'data') tear(disk, change.ino, change.offset, change.data, new Random(seed));
}

function applyNames(disk: Disk, each: Pending, fate: Fate, tree: boolean): void {
  if (fate === 'done') disk.setNames(each.names);
  else if (fate === 'nowhere') disk.setNames(each.names.filter((change) => change.ino === null));
  else if (tree && each.names.length === 1 && each.names[0]?.ino === null && each.change.op === 'names' && each.change.changes.length === 2) {
    // A directory under two names: fsck takes the newer one away.
    const added = each.change.changes.find((change) => change.ino !== null);
    if (added !== undefined && disk.inode(added.dir).entries.get(added.name) === added.ino) disk.setNames([{ ...added, ino: null }]);
  }
}

/** Some sectors of a write. */
function tear(disk: Disk, ino: number, offset: number, data: Buffer, random: Random): void {
  const content = disk.inode(ino).content;
  const out = resized(content, Math.max(content.length, offset + data.length));
  const torn = Buffer.from(out);
  for (let at = 0; at < data.length;) {
    const end = Math.min(data.length, at + sectorBytes - ((offset + at) % sectorBytes));
    if (random.chance(0.5)) data.copy(torn, offset + at, at, end);
    at = end;
  }
  disk.setContent(ino, torn);
}

/** The size came through, the data did not. */
function fill(disk: Disk, ino: number, sizeBytes: number, choice: Choice): void {
  const { content } = disk.inode(ino);
  if (content.length >= sizeBytes) return;
  const full = Buffer.from(resized(content, sizeBytes));
  if (choice.rest === 'stale') full.fill(0xa5, content.length);
  disk.setContent(ino, full);
}

/** Fewer losses that still make `breaks` true: what stays is what matters. */
export async function shrink(planner: CrashPlanner, choice: Choice, breaks: (state: CrashState) => Promise<boolean>, maxTries: number): Promise<CrashState> {
  let best = planner.state(choice);
  let tries = 0;
  for (let width = Math.max(1, choice.fates.length >> 1); ; width >>= 1) {
    for (let at = 0; at < choice.fates.length && tries < maxTries; at += width) {
      const fates = best.choice.fates.map((fate, index) => (index >= at && index < at + width ? 'done' : fate));
      if (fates.every((fate, index) => fate === best.choice.fates[index])) continue;
      tries++;
      const state = planner.state({ ...best.choice, fates });
      if (await breaks(state)) best = state;
    }
    if (width <= 1) break;
  }
  if (best.choice.rest !== 'none' && tries < maxTries) {
    const state = planner.state({ ...best.choice, rest: 'none' });
    if (await breaks(state)) best = state;
  }
  return best;
}
