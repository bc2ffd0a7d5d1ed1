import type { Campaign } from './campaign.js';

/** Every harness, by the name that `--harness` takes. Loaded when it is asked for: one may need what another machine lacks. */
export const campaigns: Readonly<Record<string, () => Promise<Campaign>>> = {
  sim: async () => (await import('./sim/index.js')).simCampaign,
  syscalls: async () => (await import('./syscalls/index.js')).syscallsCampaign,
  disk: async () => (await import('./disk/index.js')).diskCampaign,
};
