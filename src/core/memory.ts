import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';

/**
 * The most memory this process had resident at any time, in bytes, as the kernel counts it (VmHWM of /proc/self/status).
 * The figure of getrusage is no good for this: it begins with what the process that started this one had resident.
 * Where there is no /proc, that figure is all there is. Reads a file that is never on a disk, so it does not block.
 */
export function peakRssBytes(): number {
  const fallback = process.resourceUsage().maxRSS * 1024;
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'));
    return line?.[1] === undefined ? fallback : Number(line[1]) * 1024;
  } catch {
    return fallback;
  }
}

/**
 * Keeps the part of the heap where objects are young as small as it is when a program starts. Left alone it grows to 32 MiB, and as
 * much again of buffers that nobody needs any more waits to be found there. To be called before much is loaded: it does not shrink.
 */
export function keepYoungHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}
