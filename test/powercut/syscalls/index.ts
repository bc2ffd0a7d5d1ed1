import type { Campaign, CampaignOptions, CampaignRow, Part } from '../campaign.js';
import { below, seeded } from '../disk/crash-states.js';
import { makeWorld } from '../disk/fixtures.js';
import { describeInjection, Injector, keyOf, wantingForInjection, type Injection } from './faults.js';
import { CampaignRecord } from './record.js';

/** `count` of them, drawn by the seed, in a random order; all when there are no more. */
export function sample<T>(all: readonly T[], count: number, seed: number): T[] {
  const random = seeded(seed);
  const left = [...all];
  const drawn: T[] = [];
  while (drawn.length < count && left.length > 0) drawn.push(...left.splice(below(random, left.length), 1));
  return drawn;
}

function classOf({ call, fault }: Injection): string {
  return fault.kind === 'error' ? `${fault.errno} at ${call.name}` : fault.kind === 'lie' ? `${call.name} does nothing` : 'SIGKILL at a system call';
}

/** The faults of one share: every so-manieth, so that each share has some of every kind. */
export function shareOf<T>(all: readonly T[], part: Part | null): T[] {
  return all.filter((_, at) => part === null || at % part.of === part.index - 1);
}

async function run(options: CampaignOptions): Promise<CampaignRow[]> {
  const world = await makeWorld();
  try {
    const injector = await Injector.open(world);
    try {
      return await inject(injector, options);
    } finally {
      await injector.close();
    }
  } finally {
    await world.close();
  }
}

async function inject(injector: Injector, options: CampaignOptions): Promise<CampaignRow[]> {
  const { only, part } = options;
  const rows = new Map<string, { states: number; violations: number }>();
  const record = await CampaignRecord.open(options.recordFile);
  const wanted = shareOf(injector.injections, part).filter((injection) => only === null || classOf(injection).includes(only));
  const drawn = sample(wanted.filter((injection) => !record.has(injection)), options.states, options.seed);
  options.onMessage(`${String(injector.injections.length)} faults are possible, ${String(injector.unreachable)} calls cannot be told from others by their number`);
  const isStopped = (): boolean => options.signal.aborted;
  let misses = 0;
  for (const [at, injection] of drawn.entries()) {
    if (isStopped()) break;
    const { missed, problems } = await injector.check(injection);
    // Ctrl-C reaches the program under test too: what became of it then says nothing.
    if (isStopped()) break;
    await record.add({ fault: keyOf(injection), what: describeInjection(injection), missed, problems });
    if (missed) misses++;
    const row = rows.get(classOf(injection)) ?? { states: 0, violations: 0 };
    rows.set(classOf(injection), { states: row.states + 1, violations: row.violations + (problems.length > 0 ? 1 : 0) });
    for (const problem of problems) options.onMessage(problem);
    options.onProgress(at + 1, drawn.length, 'faults');
  }
  options.onMessage(`${String(misses)} faults hit something else than the store, because the calls came in another order`);
  if (options.recordFile !== null) options.onMessage(record.summary(wanted));
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([faultClass, row]) => ({ faultClass, ...row }));
}

/** System calls of the real program that fail, lie or are its last. */
export const syscallsCampaign: Campaign = {
  name: 'syscalls',
  summary: 'the real program under strace: each system call on the store fails, lies or is its last; root and strace',
  defaultStates: 200,
  breakable: [],
  divisible: true,
  prerequisites: () => {
    const wanting = wantingForInjection();
    return wanting.length === 0 ? null : `it wants ${wanting.join(', ')}`;
  },
  run,
};
