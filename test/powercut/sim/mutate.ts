import { barriers, type Barrier } from '../../../src/atomic/index.js';
import type { CampaignOptions, MutationRow } from '../campaign.js';
import { Hunt, Tally } from './campaign.js';
import type { World } from './fixtures.js';
import { scenarios } from './scenarios.js';

/** Scenarios in which the loss of a barrier (or of all of its kind) shows soonest; the others come after them, each with fewer states. */
const where: Readonly<Partial<Record<string, readonly string[]>>> = {
  root: ['first pull'], file: ['pull of an older image', 'rollback'], format: ['first pull'], image: ['first pull', 'pull of an older image'], reference: ['rollback', 'removal and collection'],
  stage: ['download', 'checkpoints', 'delta pull'], layers: ['full pull', 'repair', 'repair, no exchange'], aside: ['recovery of a layer that was set aside'],
  'layers.aside': ['repair, no exchange'], 'layers.successor': ['repair, no exchange'],
  trash: ['collection', 'removal and collection'], gc: ['collection'], spool: ['download'],
};

const likelyFactor = 5;

/** Every barrier, in the order of the list. */
export const barrierNames = Object.keys(barriers) as Barrier[];

/** Runs the product without one barrier until a promise breaks; at most `statesEach` states of each scenario, more of those where it shows. */
export async function withoutBarrier(world: World, barrier: Barrier, statesEach: number, options: CampaignOptions): Promise<MutationRow> {
  const tally = new Tally();
  const hunt = new Hunt({ ...options, world, tally, broken: barrier, firstOnly: true, pullEvery: 40, onProgress: () => undefined });
  const likely = where[barrier] ?? where[barrier.split('.')[0] ?? ''] ?? [];
  const order = [...likely.flatMap((name) => scenarios.filter((scenario) => scenario.name === name)), ...scenarios.filter((scenario) => !likely.includes(scenario.name))];
  for (const scenario of order) {
    if (hunt.over) break;
    await hunt.scenario(scenario, statesEach * (likely.includes(scenario.name) ? likelyFactor : 1));
  }
  return { barrier, noticed: hunt.first !== null, states: tally.states, by: hunt.first ?? '' };
}

/** All of them, one by one. */
export async function mutateAll(world: World, options: CampaignOptions): Promise<MutationRow[]> {
  const rows: MutationRow[] = [];
  const chosen = barrierNames.filter((barrier) => options.only === null || barrier.includes(options.only));
  const statesEach = Math.max(50, Math.min(3000, Math.floor(options.states / chosen.length / scenarios.length)));
  for (const [at, barrier] of chosen.entries()) {
    if (options.signal.aborted) break;
    options.onProgress(at, chosen.length, 'barriers');
    const row = await withoutBarrier(world, barrier, statesEach, options);
    rows.push(row);
    options.onMessage(`${row.barrier}: ${row.noticed ? `noticed (${row.by})` : 'NOT NOTICED'}`);
  }
  return rows;
}
