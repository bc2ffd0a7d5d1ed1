import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { serverAddon } from '../../core/native.js';

let collect: ((options?: { type: 'minor' }) => void) | undefined;

/**
 * Gives back what the steps of a computation before this one left: buffers that nothing refers to any more, of which V8 sees little
 * more than the handles and so is in no haste, and what the allocator keeps of freed memory. Takes some 15 ms: for the joints between
 * long steps, and before those that take much memory.
 */
export function returnFreeMemory(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as NonNullable<typeof collect>;
  }
  collect();
  // Another thread frees the buffers; the next collection, be it a small one, waits for it.
  collect({ type: 'minor' });
  serverAddon().returnFreeMemory();
}
