/** The device's half of the delta room: what a delta is, and how it is applied. */
export { applyDelta, type ApplyOptions } from './apply.js';
export type { Basis, BasisContent, FileExtent, OpenContentOptions } from './basis.js';
export { deltaAnnotations, deltaBlobs, deltaFormatVersion, deltaMediaTypes, requireDeltaFormat, type DeltaBlobs } from './format.js';
export { parseDeltaIndex, type DeltaFrame, type DeltaIndex, type DeltaLayer, type DeltaProfile, type ImageDigests } from './index-blob.js';
export { deltaLimits } from './limits.js';
export type { ContentOrigin, TargetSink } from './sink.js';
