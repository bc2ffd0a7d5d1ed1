import './remembered-inflate.js';
import type { Campaign, CampaignOptions, CampaignRow } from '../campaign.js';
import { Hunt, Tally } from './campaign.js';
import { makeWorld } from './fixtures.js';
import { mutateAll } from './mutate.js';
import { replayState } from './replay.js';
import { scenarios } from './scenarios.js';

async function run(options: CampaignOptions): Promise<CampaignRow[]> {
  const world = await makeWorld();
  const tally = new Tally();
  const chosen = scenarios.filter((scenario) => options.only === null || scenario.name.includes(options.only));
  const hunt = new Hunt({ ...options, world, tally });
  for (const [at, scenario] of chosen.entries()) {
    if (hunt.over) break;
    await hunt.scenario(scenario, Math.ceil((options.states - tally.states) / (chosen.length - at)));
  }
  return tally.rows;
}

/** The simulated filesystem. */
export const simCampaign: Campaign = {
  name: 'sim',
  summary: 'the store and the pull on a simulated filesystem that knows what is durable; no root, thousands of states a second',
  defaultStates: 100_000,
  prerequisites: () => null,
  run,
  mutate: async (options) => mutateAll(await makeWorld(), options),
  replay: async (file) => replayState(await makeWorld(), file),
};
