import type { Campaign } from '../campaign.js';

/** The simulated filesystem. */
export const simCampaign: Campaign = {
  name: 'sim',
  summary: 'the store and the pull on a simulated filesystem that knows what is durable; no root, thousands of states a second',
  defaultStates: 100_000,
  prerequisites: () => null,
  run: () => Promise.resolve([]),
};
