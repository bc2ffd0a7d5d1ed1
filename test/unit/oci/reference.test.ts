import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isWhittleError } from '../../../src/core/errors.js';
import { formatReference, parseReference, referenceTarget, sha256Digest } from '../../../src/oci/index.js';

const digest = sha256Digest(Buffer.from('x'));

describe('references as Docker writes them', () => {
  test.each<[string, object]>([
    ['alpine', { registry: 'docker.io', repository: 'library/alpine' }],
    ['alpine:3.20', { registry: 'docker.io', repository: 'library/alpine', tag: '3.20' }],
    ['foo/bar', { registry: 'docker.io', repository: 'foo/bar' }],
    ['docker.io/alpine', { registry: 'docker.io', repository: 'library/alpine' }],
    ['index.docker.io/foo/bar:v1', { registry: 'docker.io', repository: 'foo/bar', tag: 'v1' }],
    ['localhost/app', { registry: 'localhost', repository: 'app' }],
    ['localhost:5000/a/b/c:v', { registry: 'localhost:5000', repository: 'a/b/c', tag: 'v' }],
    ['127.0.0.1:5000/app', { registry: '127.0.0.1:5000', repository: 'app' }],
    ['[::1]:5000/app:x', { registry: '[::1]:5000', repository: 'app', tag: 'x' }],
    ['Host/app', { registry: 'Host', repository: 'app' }],
    [`ghcr.io/a/b@${digest}`, { registry: 'ghcr.io', repository: 'a/b', digest }],
    [`ghcr.io/a/b:t@${digest}`, { registry: 'ghcr.io', repository: 'a/b', tag: 't', digest }],
    ['a.b/c__d/e-f.g', { registry: 'a.b', repository: 'c__d/e-f.g' }],
  ])('%s', (text, parts) => {
    expect(parseReference(text)).toEqual(parts);
  });

  test.each(['', ':', '@', 'a:', ':tag', 'a@', 'a@sha256:12', 'Alpine', 'foo/Bar', 'a//b', '/a', 'a/', 'a b', 'a/../b', 'host:port/a', 'host:0/a', 'host:65536/a', 'a.b/', 'a:b:c',
    'http://host/a', 'user:pw@host/a', 'a'.repeat(256), 'a'.repeat(64), `a:${'t'.repeat(129)}`, 'a:-x', 'a\n', 'a/b\0'])('%j is refused', (text) => {
    expect(() => parseReference(text)).toThrow(/^not an image reference: /);
  });

  test('names as other tools and delta-server write them are told how they are written here', () => {
    for (const text of ['docker://host/a:1', 'http://host:5000/a', 'https://host/a']) {
      expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(`not with ${text.slice(0, text.indexOf('host'))}`), hint: expect.stringContaining('as for docker') }));
    }
    // A repository may be called so.
    expect(parseReference('docker:24')).toMatchObject({ repository: 'library/docker', tag: '24' });
  });

  test('a digest is asked for rather than the tag, and latest without either', () => {
    expect(referenceTarget(parseReference('a'))).toBe('latest');
    expect(referenceTarget(parseReference('a:b'))).toBe('b');
    expect(referenceTarget(parseReference(`a:b@${digest}`))).toBe(digest);
  });

  test('what is accepted is written and read again the same, and never leaves its place in a URL', () => {
    const text = fc.oneof(fc.string({ maxLength: 40 }), fc.stringMatching(/^[a-zA-Z0-9.:/@_[\]-]{1,30}$/), fc.stringMatching(/^([a-z]+\.[a-z]+(:[0-9]{2,4})?\/)?[a-z0-9]+([._/-][a-z0-9]+){0,3}(:[a-zA-Z0-9._-]{1,9})?$/));
    fc.assert(fc.property(text, (input) => {
      try {
        const reference = parseReference(input);
        expect(parseReference(formatReference(reference))).toEqual(reference);
        const url = new URL(`https://host/v2/${reference.repository}/manifests/${referenceTarget(reference)}`);
        expect(url.pathname).toBe(`/v2/${reference.repository}/manifests/${referenceTarget(reference)}`);
        expect(new URL(`https://${reference.registry}/`).pathname).toBe('/');
      } catch (error) {
        if (!isWhittleError(error)) throw error;
        expect(error.code).toBe('USAGE');
      }
    }), { numRuns: 1000 });
  });
});
