export type { EntryList, LayerEntry, LayerMeta, LayerMetaHead, PaxRecord, SparseExtent, TarHeader } from './types.js';
export { derivePaxValue, joinHeader, paxDerived, splitHeader, type SplitContext } from './header.js';
export { TarScanner, type TarHandler } from './scanner.js';
export { LayerMetaBuilder, type LayerObserver } from './meta.js';
export { typeflags } from './block.js';
export { PackedEntries } from './entry-list.js';
export { decodeLayerMeta, decodeLayerMetaHead, encodeLayerMeta } from './meta-codec.js';
export { entryHeaderBytes, entryPadding, rebuildTar, trailerBytes } from './rebuild.js';
export { filePath, headerSparseMap, isSparse, sparseMap, type PrefixReader, type SparseMap } from './sparse.js';
