// Pulls layer tars into a store, for tests that kill it, run two of it, or run it as another user:
//   node store-child.js ROOT NAME TAR…     prints the committed manifest digest
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { openStore } from '../../dist/applier/store/open.js';

const [root, name, ...tars] = process.argv.slice(2);
const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const digests = tars.map((path) => sha256(readFileSync(path)));
const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: digests } }));
const manifestMediaType = 'application/vnd.oci.image.manifest.v1+json';
const manifest = Buffer.from(JSON.stringify({
  schemaVersion: 2, mediaType: manifestMediaType,
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: sha256(config), size: config.length },
  layers: digests.map((digest) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: 1 })),
}));

const store = await openStore(root, { create: true });
const stage = await store.stage({ manifest, manifestMediaType, config }, { waitMs: 60_000 });
try {
  process.send?.('started');
  for (const [layer, path] of tars.entries()) {
    if (!(await stage.hasLayer(layer))) await stage.writeLayerTar(layer, createReadStream(path, { highWaterMark: 64 * 1024 }));
  }
  const image = await stage.commit({ name, source: 'test' });
  process.stdout.write(`${JSON.stringify({ manifestDigest: image.manifestDigest, counters: stage.counters, privileged: store.privileged })}\n`);
} catch (error) {
  process.stdout.write(`${JSON.stringify({ code: error.code, message: error.message })}\n`);
  process.exitCode = 1;
} finally {
  await stage.close();
  await store.close();
  if (process.connected) process.disconnect();
}
