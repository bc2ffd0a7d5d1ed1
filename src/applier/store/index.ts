export type * from './types.js';
export { defaultStoreRoot, openStore } from './open.js';
export { STALE_STAGE_MS, storeLimits } from './limits.js';
