import { WhittleError } from './errors.js';

/** Decimal units, as networks and registries count; `parseBytes` reads the binary ones too. */
const byteUnits = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** A count of bytes for people, in decimal units with three significant digits: `999 B`, `1.23 kB`, `45.6 MB`. */
export function formatBytes(sizeBytes: number): string {
  if (!Number.isFinite(sizeBytes)) return '?';
  let value = Math.abs(sizeBytes);
  let unit = 0;
  // 999.5 would print as "1000" with three digits, so the step to the next unit is taken a little early.
  while (unit < byteUnits.length - 1 && value >= 999.5) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${sizeBytes < 0 ? '-' : ''}${value.toFixed(digits)} ${byteUnits[unit] ?? 'PB'}`;
}

/** A count of bytes to the byte, with thousands separated: `1,234,567`. */
export function formatExact(count: number): string {
  return count.toLocaleString('en-US', { maximumFractionDigits: 0 });
}

/** How many of a thing there are: `1 layer`, `2 layers`. */
export function formatCount(count: number, noun: string): string {
  return `${formatExact(count)} ${count === 1 ? noun : `${noun}s`}`;
}

/** Memory in binary units, as limits are written: `512 MiB`, `1.50 GiB`. */
export function formatMemory(sizeBytes: number): string {
  const mebibytes = sizeBytes / 1048576;
  if (mebibytes >= 1024) return `${(mebibytes / 1024).toFixed(2)} GiB`;
  return `${mebibytes.toFixed(mebibytes < 10 ? 1 : 0)} MiB`;
}

/** Bytes per second: `1.23 MB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** A duration for people: `35 ms`, `1.25 s`, `48 s`, `2 min 05 s`, `3 h 07 min`. */
export function formatDuration(durationMs: number): string {
  if (!Number.isFinite(durationMs) || durationMs < 0) return '?';
  if (durationMs < 999.5) return `${durationMs.toFixed(0)} ms`;
  const seconds = durationMs / 1000;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${seconds.toFixed(whole < 20 ? 1 : 0)} s`;
  if (whole < 3600) return `${String(Math.floor(whole / 60))} min ${String(whole % 60).padStart(2, '0')} s`;
  const minutes = Math.round(whole / 60);
  return `${String(Math.floor(minutes / 60))} h ${String(minutes % 60).padStart(2, '0')} min`;
}

/** How a delta compares with what it replaces: `21.3x smaller`, `1.2x larger`, `same size`. */
export function formatRatio(fullBytes: number, deltaBytes: number): string {
  if (fullBytes === deltaBytes) return 'same size';
  if (fullBytes <= 0 || deltaBytes <= 0) return fullBytes > deltaBytes ? 'nothing to send' : 'larger';
  const ratio = fullBytes > deltaBytes ? fullBytes / deltaBytes : deltaBytes / fullBytes;
  const digits = ratio < 9.95 ? 2 : ratio < 99.5 ? 1 : 0;
  return `${ratio.toFixed(digits)}x ${fullBytes > deltaBytes ? 'smaller' : 'larger'}`;
}

const unitFactors: Readonly<Record<string, number>> = {
  '': 1, b: 1,
  k: 1024, kb: 1000, kib: 1024,
  m: 1024 ** 2, mb: 1000 ** 2, mib: 1024 ** 2,
  g: 1024 ** 3, gb: 1000 ** 3, gib: 1024 ** 3,
  t: 1024 ** 4, tb: 1000 ** 4, tib: 1024 ** 4,
};

/**
 * Reads a size that a person typed: `1048576`, `512MiB`, `1.5GB`, `2g` (a bare letter is binary, as in Docker's
 * --memory). `what` names the flag in the error. Throws USAGE.
 */
export function parseBytes(text: string, what: string): number {
  const match = /^\s*(\d{1,15}(?:\.\d{1,6})?)\s*([a-zA-Z]{0,3})\s*$/.exec(text);
  const factor = match === null ? undefined : unitFactors[(match[2] ?? '').toLowerCase()];
  const sizeBytes = match === null || factor === undefined ? NaN : Math.round(Number(match[1]) * factor);
  if (!Number.isSafeInteger(sizeBytes)) {
    throw new WhittleError('USAGE', `${what}: not a size: ${JSON.stringify(text.slice(0, 64))}`, { hint: 'Write a number with a unit, such as 512MiB or 1GiB.' });
  }
  return sizeBytes;
}

const longestList = 20;

/** The items in one line, of a long list the first ones and how many more there are; `none` for an empty one. */
export function formatList(items: readonly string[], none: string): string {
  if (items.length === 0) return none;
  const more = items.length - longestList;
  return items.slice(0, longestList).join(', ') + (more > 0 ? ` and ${String(more)} more` : '');
}

/** The first 12 hex digits of a digest, for tables and logs; other text is returned as it is. */
export function shortDigest(digest: string): string {
  const match = /^sha(?:256|512):([0-9a-f]{12})[0-9a-f]+$/.exec(digest);
  return match?.[1] ?? digest;
}
