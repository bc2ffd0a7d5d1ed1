import { WhittleError } from '../core/errors.js';
import { formatList } from '../core/format.js';
import type { Descriptor } from './descriptor.js';
import type { JsonFields } from './json.js';

/** What an image runs on, in the words of Go (`linux`, `amd64`, `arm64`, `arm` with variant `v7`, …). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

const architectureAliases: ReadonlyMap<string, readonly [architecture: string, variant: string]> = new Map([
  ['i386', ['386', '']],
  ['x86_64', ['amd64', '']],
  ['x86-64', ['amd64', '']],
  ['aarch64', ['arm64', '']],
  ['armhf', ['arm', 'v7']],
  ['armel', ['arm', 'v6']],
]);

const nodeArchitectures: ReadonlyMap<string, string> = new Map([
  ['x64', 'amd64'], ['ia32', '386'], ['ppc64', 'ppc64le'], ['mipsel', 'mipsle'],
]);

/** Variants that mean the same as none at all. */
const impliedVariants: ReadonlyMap<string, string> = new Map([['arm64', 'v8'], ['amd64', 'v1']]);

function normalizeVariant(architecture: string, variant: string): string {
  const full = /^[0-9]/.test(variant) ? `v${variant}` : variant;
  if (architecture === 'arm') return full === '' ? 'v7' : full;
  return full === impliedVariants.get(architecture) || full === 'v8.0' ? '' : full;
}

/** The one spelling of a platform that Docker uses: `aarch64` is `arm64`, `arm64/v8` is `arm64`, `armhf` and bare `arm` are `arm/v7`. */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const name = platform.architecture.toLowerCase();
  const [architecture, implied] = architectureAliases.get(name) ?? [name, ''];
  const given = (platform.variant ?? '').toLowerCase();
  const variant = normalizeVariant(architecture, given === '' ? implied : given);
  return { os: os === 'macos' ? 'darwin' : os, architecture, ...(variant === '' ? {} : { variant }) };
}

/** `os/architecture[/variant]`. */
export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, ...(platform.variant === undefined ? [] : [platform.variant])].join('/');
}

/** The platform of this process: Linux on the architecture that Node was built for. */
export function hostPlatform(): Platform {
  const architecture = nodeArchitectures.get(process.arch) ?? process.arch;
  const armVersion = (process.config.variables as { arm_version?: unknown }).arm_version;
  const variant = architecture === 'arm' && (typeof armVersion === 'string' || typeof armVersion === 'number') ? String(armVersion) : '';
  return normalizePlatform({ os: 'linux', architecture, variant });
}

/** Reads `os/architecture[/variant]` or a bare architecture (`arm64`, `armhf`), as `--platform` takes it. Throws USAGE. */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(part))) {
    throw new WhittleError('USAGE', `not a platform: ${JSON.stringify(text.slice(0, 80))} (expected os/architecture[/variant], like linux/arm64)`);
  }
  const [first = '', second, variant = ''] = parts;
  return second === undefined
    ? normalizePlatform({ os: 'linux', architecture: first })
    : normalizePlatform({ os: first, architecture: second, variant });
}

/** Checks the platform of an untrusted document. Throws IMAGE_INVALID. */
export function parsePlatformFields(fields: JsonFields): Platform {
  const os = fields.string('os', 256);
  const architecture = fields.string('architecture', 256);
  const variant = fields.optionalString('variant', 256) ?? '';
  return { os, architecture, ...(variant === '' ? {} : { variant }) };
}

function variantNumber(variant: string | undefined, whenAbsent: number): number {
  const match = /^v([0-9]+)$/.exec(variant ?? '');
  return match === null ? whenAbsent : Number(match[1]);
}

/**
 * How well content for `offered` runs on `wanted`: 0 is not at all, larger is better. An exact match is best;
 * then older variants of the same architecture, newest first (arm/v7 runs arm/v6, amd64/v3 runs amd64).
 */
function platformScore(wanted: Platform, offered: Platform): number {
  const want = normalizePlatform(wanted);
  const offer = normalizePlatform(offered);
  if (want.os !== offer.os || want.architecture !== offer.architecture) return 0;
  if (want.variant === offer.variant) return 1000;
  if (want.architecture !== 'arm' && want.architecture !== 'amd64' && want.architecture !== 'arm64') return 0;
  const base = Number((impliedVariants.get(want.architecture) ?? 'v7').slice(1));
  const wantNumber = variantNumber(want.variant, base);
  const offerNumber = variantNumber(offer.variant, base);
  return offerNumber < wantNumber ? 1 + Math.min(offerNumber, 900) : 0;
}

/** True when content for `offered` runs on `wanted`. */
export function platformMatches(wanted: Platform, offered: Platform): boolean {
  return platformScore(wanted, offered) > 0;
}

/**
 * Picks the manifest of an index that fits `wanted` best; of equals the first. An index whose only entry names
 * no platform gives that entry. Throws IMAGE_PLATFORM, listing what there is.
 */
export function selectPlatform(manifests: readonly Descriptor[], wanted: Platform, what: string): Descriptor {
  let best: Descriptor | undefined;
  let bestScore = 0;
  for (const candidate of manifests) {
    const score = candidate.platform === undefined ? 0 : platformScore(wanted, candidate.platform);
    if (score > bestScore) [best, bestScore] = [candidate, score];
  }
  const [only] = manifests;
  if (best === undefined && manifests.length === 1 && only !== undefined && only.platform === undefined) return only;
  if (best !== undefined) return best;
  const offered = [...new Set(manifests.flatMap((each) => (each.platform === undefined || each.platform.os === 'unknown' ? [] : [formatPlatform(each.platform)])))];
  throw new WhittleError('IMAGE_PLATFORM', `${what} has no image for ${formatPlatform(wanted)}; it has ${formatList(offered, 'none that names a platform')}`, {
    data: { wanted: formatPlatform(wanted) },
  });
}
