import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { once } from 'node:events';
import { mkdtemp, readdir, readlink, rm, truncate } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import type { DeltaServer } from '../../../src/server/serve.js';
import { ask, json, startTestServer } from '../../support/delta-server.js';
import { digestOf, makeImage, noise, type MadeImage } from '../../support/images.js';
import { until } from '../../support/until.js';

let folder: string;
let image: MadeImage;
let docker: MadeImage;
let server: DeltaServer;
let url: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-http-'));
  image = await makeImage(join(folder, 'app'), '1.0', [[{ path: 'a', content: noise(50_000) }], [{ path: 'b', content: 'b' }]], { compression: 'none' });
  docker = await makeImage(join(folder, 'dock'), 'old', [[{ path: 'x', content: 'x' }]], { mediaTypes: 'docker' });
  const many = [];
  for (let at = 0; at < 12; at++) {
    const tag = `t${String(at).padStart(2, '0')}`;
    await makeImage(join(folder, 'many'), tag, [[{ path: 'x', content: tag }]]);
    many.push(`fleet/many=oci:${join(folder, 'many')}:${tag}`);
  }
  ({ server, url } = await startTestServer({
    images: [`oci:${join(folder, 'app')}`, `oci:${join(folder, 'dock')}:old`, ...many], root: join(folder, 'root'),
    httpLimits: { idleTimeoutMs: 20_000, headersTimeoutMs: 1000, requestTimeoutMs: 1500 },
  }));
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

/** How often this process has a blob's file open. */
async function openCount(digest: string): Promise<number> {
  const fds = await readdir('/proc/self/fd');
  const targets = await Promise.all(fds.map((fd) => readlink(join('/proc/self/fd', fd)).catch(() => '')));
  return targets.filter((target) => target.endsWith(digest.slice(7))).length;
}

const codeOf = (answer: Awaited<ReturnType<typeof ask>>): string | undefined => (json(answer) as { errors: { code: string }[] }).errors[0]?.code;

describe('the pull API', () => {
  test('says that it is a registry, and what it has', async () => {
    const base = await ask(url, '/v2/');
    expect([base.status, base.headers['docker-distribution-api-version']]).toEqual([200, 'registry/2.0']);
    expect(json(await ask(url, '/v2/_catalog'))).toEqual({ repositories: ['app', 'dock', 'fleet/many'] });
    expect(json(await ask(url, '/v2/app/tags/list'))).toEqual({ name: 'app', tags: ['1.0'] });
  });

  test.each([['oci', () => image, 'app', '1.0'], ['docker', () => docker, 'dock', 'old']] as const)('gives %s manifests by tag and digest, byte for byte', async (_, made, repository, tag) => {
    const { manifest, manifestDigest } = made();
    const { mediaType } = JSON.parse(manifest.toString()) as { mediaType: string };
    for (const reference of [tag, manifestDigest]) {
      const got = await ask(url, `/v2/${repository}/manifests/${reference}`);
      expect(got.status).toBe(200);
      expect(got.body.equals(manifest)).toBe(true);
      expect(got.headers).toMatchObject({ 'docker-content-digest': manifestDigest, 'content-type': mediaType, etag: `"${manifestDigest}"` });
      const head = await ask(url, `/v2/${repository}/manifests/${reference}`, { method: 'HEAD' });
      expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, String(manifest.length), 0]);
      const conditional = await ask(url, `/v2/${repository}/manifests/${reference}`, { headers: { 'if-none-match': `"x", W/"${manifestDigest}"` } });
      expect([conditional.status, conditional.body.length]).toEqual([304, 0]);
    }
  });

  test('gives blobs whole, by range and by header alone; nothing may re-compress them', async () => {
    const layer = image.layers[0]!;
    const target = `/v2/app/blobs/${layer.digest}`;
    const whole = await ask(url, target);
    expect(whole.body.equals(layer.tar)).toBe(true);
    expect(whole.headers).toMatchObject({ 'accept-ranges': 'bytes', etag: `"${layer.digest}"`, 'content-length': String(layer.sizeBytes) });
    expect(whole.headers['cache-control']).toContain('no-transform');
    const head = await ask(url, target, { method: 'HEAD', headers: { range: 'bytes=0-1' } });
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, String(layer.sizeBytes), 0]);
    const beyond = await ask(url, target, { headers: { range: `bytes=${String(layer.sizeBytes)}-` } });
    expect([beyond.status, beyond.headers['content-range']]).toEqual([416, `bytes */${String(layer.sizeBytes)}`]);
  });

  test('any range is the slice that it names', async () => {
    const layer = image.layers[0]!;
    const at = fc.option(fc.nat(layer.sizeBytes + 2000), { nil: null });
    await fc.assert(fc.asyncProperty(at, at, async (first, last) => {
      const got = await ask(url, `/v2/app/blobs/${layer.digest}`, { headers: { range: `bytes=${first === null ? '' : String(first)}-${last === null ? '' : String(last)}` } });
      const slice = first === null ? layer.tar.subarray(-(last ?? 0)) : layer.tar.subarray(first, (last ?? layer.sizeBytes) + 1);
      if (got.status === 206) {
        const start = first ?? Math.max(0, layer.sizeBytes - (last ?? 0));
        expect(got.body.equals(slice)).toBe(true);
        expect(got.headers['content-range']).toBe(`bytes ${String(start)}-${String(start + slice.length - 1)}/${String(layer.sizeBytes)}`);
      } else if (got.status === 200) {
        expect((first === null && last === null) || (first !== null && last !== null && last < first)).toBe(true);
        expect(got.body.equals(layer.tar)).toBe(true);
      } else {
        expect(got.status).toBe(416);
        expect(first === null ? last === 0 : first >= layer.sizeBytes).toBe(true);
      }
    }), { numRuns: 150 });
  });

  test('If-Range: the tag lets the range through, anything else gets the whole', async () => {
    const layer = image.layers[0]!;
    const ranged = (ifRange: string) => ask(url, `/v2/app/blobs/${layer.digest}`, { headers: { range: 'bytes=10-19', 'if-range': ifRange } });
    expect((await ranged(`"${layer.digest}"`)).status).toBe(206);
    for (const other of ['"sha256:0"', `W/"${layer.digest}"`, 'Wed, 21 Oct 2015 07:28:00 GMT']) {
      const got = await ranged(other);
      expect([got.status, got.body.length]).toEqual([200, layer.sizeBytes]);
    }
    const unmatched = await ask(url, `/v2/app/blobs/${layer.digest}`, { headers: { 'if-match': '"other"' } });
    expect(unmatched.status).toBe(412);
  });

  test('pages lists as n and last ask, and the links lead through all of it', async () => {
    const seen: string[] = [];
    let target: string | null = '/v2/fleet/many/tags/list?n=5';
    for (let pages = 0; target !== null && pages < 10; pages++) {
      const page = await ask(url, target);
      const { tags } = json(page) as { tags: string[] };
      expect(tags.length).toBeLessThanOrEqual(5);
      seen.push(...tags);
      target = /<([^>]+)>; rel="next"/.exec(String(page.headers['link'] ?? ''))?.[1] ?? null;
    }
    expect(seen).toEqual(Array.from({ length: 12 }, (_, at) => `t${String(at).padStart(2, '0')}`));
    expect(json(await ask(url, '/v2/_catalog?n=1&last=app'))).toEqual({ repositories: ['dock'] });
    expect(json(await ask(url, '/v2/fleet/many/tags/list?n=0'))).toEqual({ name: 'fleet/many', tags: [] });
    const bad = await ask(url, '/v2/_catalog?n=-1');
    expect([bad.status, codeOf(bad)]).toEqual([400, 'PAGINATION_NUMBER_INVALID']);
  });
});

describe('what is not there, and what is not allowed', () => {
  const unknown = `sha256:${'0'.repeat(64)}`;
  test.each([
    ['/v2/nope/tags/list', 404, 'NAME_UNKNOWN'], ['/v2/app/manifests/nope', 404, 'MANIFEST_UNKNOWN'], [`/v2/app/manifests/${unknown}`, 404, 'MANIFEST_UNKNOWN'],
    [`/v2/app/blobs/${unknown}`, 404, 'BLOB_UNKNOWN'], ['/v2/app/blobs/sha256:12', 400, 'DIGEST_INVALID'], ['/v2/App/tags/list', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/-x', 400, 'TAG_INVALID'], ['/v2/app/referrers/nope', 400, 'DIGEST_INVALID'], ['/', 404, 'UNKNOWN'], ['/v1/', 404, 'UNKNOWN'],
    ['/v2/%zz/tags/list', 400, 'NAME_INVALID'], ['/v2/a%00b/tags/list', 400, 'NAME_INVALID'], ['//v2/app/tags/list', 404, 'UNKNOWN'], ['*', 404, 'UNKNOWN'],
  ])('%s is %d %s', async (target, status, code) => {
    const got = await ask(url, target);
    expect([got.status, codeOf(got)]).toEqual([status, code]);
  });

  test.each(['/v2/../../etc/passwd', '/v2/app/blobs/../../../../etc/passwd', '/v2/app/blobs/..%2f..%2f..%2fetc%2fpasswd', '/v2/app/manifests/..', '/v2/..%2f..%2fetc/tags/list', '/v2/app/blobs/sha256:../../../etc/passwd'])('%s leads nowhere', async (target) => {
    const got = await ask(url, target);
    expect(got.status).toBeGreaterThanOrEqual(400);
    expect(got.body.toString()).not.toContain('root:');
  });

  test('a blob of another repository is unknown', async () => {
    expect((await ask(url, `/v2/dock/blobs/${image.layers[0]!.digest}`)).status).toBe(404);
  });

  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])('%s is refused', async (method) => {
    const got = await ask(url, '/v2/app/blobs/uploads/', { method });
    expect([got.status, got.headers.allow, codeOf(got)]).toEqual([405, 'GET, HEAD', 'UNSUPPORTED']);
  });

  test('any target gets a proper answer, and the server lives on', async () => {
    const piece = fc.oneof(fc.constantFrom('v2', 'app', 'manifests', 'blobs', 'referrers', 'tags', 'list', '..', '%2e%2e', '%', '', image.manifestDigest), fc.webSegment());
    await fc.assert(fc.asyncProperty(fc.array(piece, { maxLength: 7 }), fc.webQueryParameters(), async (pieces, query) => {
      const got = await ask(url, `/${pieces.join('/')}?${query}`);
      expect([200, 400, 404]).toContain(got.status);
      if (got.status !== 200) expect(typeof codeOf(got)).toBe('string');
    }), { numRuns: 300 });
    expect((await ask(url, '/v2/')).status).toBe(200);
  });

  test('headers and request lines are bounded', async () => {
    expect((await ask(url, `/v2/${'a/'.repeat(12_000)}tags/list`)).status).toBe(431);
    expect((await ask(url, '/v2/', { headers: { 'x-large': 'x'.repeat(20_000) } })).status).toBe(431);
  });

  test('a client that never finishes its request is cut off', async () => {
    const { port } = new URL(url);
    const socket = connect(Number(port), '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.write('GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ');
    await once(socket, 'close');
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 408/);
  });

  test('answers that wait behind another one end with their connection, and their files are closed', async () => {
    const { hostname, port } = new URL(url);
    const digest = image.layers[0]!.digest;
    const socket = connect(Number(port), hostname).on('error', () => undefined);
    await once(socket, 'connect');
    // Nobody reads, so the first answers fill the connection, and those after them wait.
    socket.pause().write(`GET /v2/app/blobs/${digest} HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(400));
    await until(async () => await openCount(digest) > 1);
    socket.resetAndDestroy();
    const goneMs = performance.now();
    await until(async () => await openCount(digest) === 0);
    // What nobody closes is closed in the end, when its memory is collected.
    expect(performance.now() - goneMs).toBeLessThan(20_000);
  });

  test('garbage on the wire gets a 400 and nothing else', async () => {
    const { port } = new URL(url);
    const socket = connect(Number(port), '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.write('\x16\x03\x01 not http\r\n\r\n');
    await once(socket, 'close');
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 400/);
  });

  test('a blob whose file has another size than it should is not served', async () => {
    const made = await makeImage(join(folder, 'dock'), 'later', [[{ path: 'y', content: 'y' }]]);
    const second = await startTestServer({ images: [`oci:${join(folder, 'dock')}:later`], root: join(folder, 'root2') });
    const { digest } = made.layers[0]!;
    expect((await ask(second.url, `/v2/dock/blobs/${digest}`)).status).toBe(200);
    await truncate(join(folder, 'dock', 'blobs', 'sha256', digest.slice(7)), 10);
    const got = await ask(second.url, `/v2/dock/blobs/${digest}`);
    expect([got.status, codeOf(got)]).toEqual([404, 'BLOB_UNKNOWN']);
    await second.server.close();
    expect(digestOf(made.manifest)).toBe(made.manifestDigest);
  });
});
