import { createHash, type Hash } from 'node:crypto';
import { WhittleError } from '../core/errors.js';

/** Hash algorithms that a digest may name, with the length of their hexadecimal form. */
const hexLengths = { sha256: 64, sha512: 128 } as const;

/** A hash algorithm that a digest may name. */
export type DigestAlgorithm = keyof typeof hexLengths;

/** A digest taken apart. `hex` is lower case and as long as the algorithm says. */
export interface ParsedDigest {
  readonly algorithm: DigestAlgorithm;
  readonly hex: string;
}

function isAlgorithm(name: string): name is DigestAlgorithm {
  return Object.hasOwn(hexLengths, name);
}

function tryParse(text: string): ParsedDigest | undefined {
  const colon = text.indexOf(':');
  const algorithm = text.slice(0, Math.max(colon, 0));
  const hex = text.slice(colon + 1);
  if (!isAlgorithm(algorithm) || hex.length !== hexLengths[algorithm] || !/^[0-9a-f]+$/.test(hex)) return undefined;
  return { algorithm, hex };
}

/** True when `text` is a digest that this project can verify (`sha256:` or `sha512:` and lower-case hex). */
export function isDigest(text: string): boolean {
  return tryParse(text) !== undefined;
}

/** Takes a digest apart. Throws IMAGE_INVALID for anything but `sha256:<64 hex>` or `sha512:<128 hex>` in lower case. */
export function parseDigest(text: string): ParsedDigest {
  const parsed = tryParse(text);
  if (parsed === undefined) throw new WhittleError('IMAGE_INVALID', `not a sha256 or sha512 digest: ${JSON.stringify(text.slice(0, 160))}`);
  return parsed;
}

/** The sha256 digest of `bytes` as `sha256:<hex>`. */
export function sha256Digest(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** Hashes a stream of bytes and compares the result with the digest it was made for. */
export class DigestVerifier {
  readonly #hash: Hash;
  #sizeBytes = 0;

  /** Throws IMAGE_INVALID when `digest` is malformed. */
  constructor(readonly digest: string) {
    this.#hash = createHash(parseDigest(digest).algorithm);
  }

  /** Bytes seen so far. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Takes the next bytes. */
  update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    this.#sizeBytes += chunk.length;
  }

  /** True when the bytes seen have the expected digest. Call once, at the end. */
  matches(): boolean {
    return this.#hash.digest('hex') === parseDigest(this.digest).hex;
  }
}

/** Throws DIGEST_MISMATCH unless `bytes` have the digest `digest`; `what` names them in the message. */
export function verifyDigest(bytes: Uint8Array, digest: string, what: string): void {
  const verifier = new DigestVerifier(digest);
  verifier.update(bytes);
  if (!verifier.matches()) throw new WhittleError('DIGEST_MISMATCH', `${what} does not have the digest ${digest}`, { data: { digest } });
}
