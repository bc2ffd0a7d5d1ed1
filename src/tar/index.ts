export type { LayerEntry, LayerMeta, PaxRecord, SparseExtent, TarHeader } from './types.js';
export { derivePaxValue, joinHeader, paxDerived, splitHeader, type SplitContext } from './header.js';
export { TarScanner, type TarHandler } from './scanner.js';
