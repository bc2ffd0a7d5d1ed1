export type * from './durable-fs.js';
export { barriers, type Barrier, type DurableKind } from './barriers.js';
export { LinuxFs, type LinuxFsOptions } from './linux-fs.js';
export * from './durable.js';
export * from './lock.js';
export * from './record.js';
export * from './remove-tree.js';
export * from './storage-error.js';
