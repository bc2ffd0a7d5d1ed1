import { createHash } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { chainIds, formatPlatform, mediaTypes, normalizePlatform, parsePlatform, selectPlatform, sha256Digest, type Descriptor } from '../../../src/oci/index.js';

const entry = (platform: string | undefined): Descriptor => {
  const [os = '', architecture = '', variant] = (platform ?? '').split('/');
  return {
    mediaType: mediaTypes.ociManifest, digest: sha256Digest(Buffer.from(platform ?? '')), size: 1,
    ...(platform === undefined ? {} : { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } }),
  };
};
const select = (wanted: string, ...offered: (string | undefined)[]): string => {
  const { platform } = selectPlatform(offered.map(entry), parsePlatform(wanted), 'image');
  return platform === undefined ? 'none' : formatPlatform(platform);
};

describe('platforms', () => {
  test.each([
    ['linux/aarch64', 'linux/arm64'], ['linux/arm64/v8', 'linux/arm64'], ['linux/arm64/8', 'linux/arm64'], ['armhf', 'linux/arm/v7'], ['linux/armel', 'linux/arm/v6'],
    ['linux/arm', 'linux/arm/v7'], ['linux/arm/6', 'linux/arm/v6'], ['x86_64', 'linux/amd64'], ['Linux/x86-64/v1', 'linux/amd64'], ['linux/amd64/v3', 'linux/amd64/v3'],
    ['linux/i386', 'linux/386'], ['macos/arm64', 'darwin/arm64'], ['linux/riscv64', 'linux/riscv64'],
  ])('%s is %s', (written, meant) => {
    expect(formatPlatform(parsePlatform(written))).toBe(meant);
    expect(normalizePlatform(parsePlatform(written))).toEqual(parsePlatform(written));
  });

  test.each(['', '/', 'linux/', 'a/b/c/d', 'linux/arm 64', '../x'])('%j is refused', (text) => {
    expect(() => parsePlatform(text)).toThrow('not a platform');
  });

  test('the best that runs is picked', () => {
    expect(select('linux/arm64', 'linux/amd64', 'linux/arm64/v8')).toBe('linux/arm64/v8');
    expect(select('linux/arm/v7', 'linux/arm/v5', 'linux/arm/v6', 'linux/amd64')).toBe('linux/arm/v6');
    expect(select('linux/arm/v7', 'linux/arm/v6', 'linux/arm/v7')).toBe('linux/arm/v7');
    expect(select('linux/amd64/v3', 'linux/amd64', 'linux/amd64/v2', 'linux/amd64/v4')).toBe('linux/amd64/v2');
    expect(select('linux/amd64', undefined)).toBe('none');
  });

  test('what does not run is not picked, and the error says what there is', () => {
    expect(() => select('linux/arm/v6', 'linux/arm/v7')).toThrow('has no image for linux/arm/v6; it has linux/arm/v7');
    expect(() => select('linux/arm64', 'linux/arm/v7', 'windows/arm64', 'unknown/unknown')).toThrow('it has linux/arm/v7, windows/arm64');
    expect(() => select('linux/amd64', undefined, undefined)).toThrow('none that names a platform');
  });

  test('a chainID is the digest of its parent and its layer', () => {
    const ids = ['a', 'b', 'c'].map((text) => sha256Digest(Buffer.from(text)));
    const two = `sha256:${createHash('sha256').update(`${ids[0]!} ${ids[1]!}`).digest('hex')}`;
    const three = `sha256:${createHash('sha256').update(`${two} ${ids[2]!}`).digest('hex')}`;
    expect(chainIds(ids)).toEqual([ids[0], two, three]);
    expect(chainIds([])).toEqual([]);
  });
});
