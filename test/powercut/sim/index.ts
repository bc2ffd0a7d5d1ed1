import './remembered-inflate.js';
import type { Campaign, CampaignOptions, CampaignRow } from '../campaign.js';
import { Hunt, Tally } from './campaign.js';
import { strikeAll } from './errors.js';
import { makeWorld, type World } from './fixtures.js';
import { barrierNames, mutateAll } from './mutate.js';
import { replayState } from './replay.js';
import { scenarios, type Scenario } from './scenarios.js';

/** Parts of the states that go to other faults than cuts. */
const errorShare = 0.02;
const lieShare = 0.03;
/** A pull takes as long as thirty checks. */
const pullEvery = 150;

/** A disk that acknowledges and loses. */
async function lieAbout(options: CampaignOptions & { readonly world: World; readonly tally: Tally }): Promise<void> {
  const hunt = new Hunt({ ...options, lies: true, pullEvery });
  const lied = scenarios.filter((scenario) => ['first pull', 'full pull', 'delta pull', 'pull of an older image'].includes(scenario.name));
  for (const scenario of lied) if (!hunt.over) await hunt.scenario(scenario, Math.ceil((options.states * lieShare) / lied.length));
}

async function run(options: CampaignOptions): Promise<CampaignRow[]> {
  const world = await makeWorld();
  const tally = new Tally();
  const chosen = [...scenarios].sort((a, b) => weight(a) - weight(b)).filter((scenario) => options.only === null || scenario.name.includes(options.only));
  if (options.only === null || 'disk errors'.includes(options.only)) await strikeAll({ ...options, world, tally }, Math.ceil(options.states * errorShare));
  if (options.only === null || 'a disk that lies'.includes(options.only)) await lieAbout({ ...options, world, tally });
  const broken = barrierNames.find((each) => each === options.without);
  const hunt = new Hunt({ ...options, world, tally, pullEvery, ...(broken === undefined ? {} : { broken }) });
  for (let left = chosen.length; left > 0 && !hunt.over; left--) {
    // Short operations have few states: what they leave over goes to the long ones, which come last.
    const scenario = chosen[chosen.length - left];
    if (scenario !== undefined) await hunt.scenario(scenario, Math.ceil((options.states - tally.states) / left));
  }
  return tally.rows;
}

/** How many states a scenario has, roughly: those with few come first. */
function weight(scenario: Scenario): number {
  return scenario.name === 'rollback' ? 0 : scenario.name.startsWith('recovery') ? 1 : scenario.mixed === true ? 3 : 2;
}

/** The simulated filesystem. */
export const simCampaign: Campaign = {
  name: 'sim',
  summary: 'the store and the pull on a simulated filesystem that knows what is durable; no root, thousands of states a second',
  defaultStates: 100_000,
  prerequisites: () => null,
  breakable: barrierNames,
  run,
  mutate: async (options) => mutateAll(await makeWorld(), options),
  replay: async (file) => replayState(await makeWorld(), file),
};
