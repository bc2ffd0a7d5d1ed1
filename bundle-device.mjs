// Puts the device's program into one file, dist/bundle/device.cjs, and beside it what V8 compiles of it: a device starts it for every
// pull, and reading and compiling some 250 modules takes longer than a small update. Its depth below the package's root is that of
// the modules it is made of, which find the addon and package.json by it.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { pack } from 'tar-stream';
import { devicePaths, loadDevice, sealCode, setDeviceFlags } from './bin/device-bundle.js';

const platform = { os: 'linux', architecture: 'amd64' };

/** What a device needs of the HTTP client: an agent that makes requests. The rest (fetch, caches, mocks) takes longer to load than a request. */
const httpClient = `
const Dispatcher = require('undici/lib/dispatcher/dispatcher.js');
Dispatcher.prototype.request = require('undici/lib/api/api-request.js');
module.exports = { Agent: require('undici/lib/dispatcher/agent.js'), buildConnector: require('undici/lib/core/connect.js') };
`;

/** HTTP/2, which a registry is never asked for: Node's module of it takes as long to load as all others of a request. */
const noHttp2 = 'module.exports = () => { throw new Error("the device speaks HTTP/1.1 only"); };';

const smallHttpClient = {
  name: 'small-http-client',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^undici$/ }, () => ({ path: 'undici', namespace: 'device' }));
    onLoad({ filter: /^undici$/, namespace: 'device' }, () => ({ contents: httpClient, resolveDir: process.cwd() }));
    onLoad({ filter: /undici\/lib\/dispatcher\/client-h2\.js$/ }, () => ({ contents: noHttp2 }));
  },
};

async function makeBundle() {
  const outfile = devicePaths.bundle;
  // Never code of another program beside this one.
  await rm(devicePaths.code, { force: true });
  await build({
    entryPoints: ['dist/cli/device.js'],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    define: { 'import.meta.url': 'bundleUrl' },
    // Names stay readable, for the stacks of --debug.
    minifySyntax: true,
    minifyWhitespace: true,
    keepNames: false,
    legalComments: 'external',
    external: ['zstd-napi'],
    plugins: [smallHttpClient],
    // The program runs as a script, where only require loads what is left out of it: Node's own modules too.
    supported: { 'dynamic-import': false },
    logLevel: 'warning',
  });
  if ((await readFile(outfile)).some((byte) => byte > 0x7f)) throw new Error(`${outfile} is not ASCII`);
}

function sha256(bytes) {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A layer with one of each thing, as a tar. */
async function smallLayer() {
  const tar = pack();
  tar.entry({ name: 'a/', type: 'directory' });
  tar.entry({ name: 'a/file' }, Buffer.alloc(1000, 'text\n'));
  tar.entry({ name: 'a/large' }, Buffer.alloc(300_000, 7));
  tar.entry({ name: 'a/link', type: 'link', linkname: 'a/file' });
  tar.entry({ name: 'a/symlink', type: 'symlink', linkname: 'file' });
  tar.finalize();
  const parts = [];
  for await (const part of tar) parts.push(part);
  return Buffer.concat(parts);
}

/** A registry with one image, as the replies to its paths. */
async function smallImage() {
  const tar = await smallLayer();
  const layer = gzipSync(tar);
  const config = Buffer.from(JSON.stringify({ ...platform, config: {}, rootfs: { type: 'layers', diff_ids: [sha256(tar)] } }));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: sha256(config), size: config.length },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: sha256(layer), size: layer.length }],
  }));
  const replies = new Map([config, layer].map((body) => [`/v2/small/blobs/${sha256(body)}`, { body, type: 'application/octet-stream' }]));
  for (const name of ['latest', sha256(manifest)]) replies.set(`/v2/small/manifests/${name}`, { body: manifest, type: mediaType });
  return replies;
}

/** Pulls a small image with the program in this process, so that what a pull takes is compiled. */
async function pullSmallImage(main) {
  const replies = await smallImage();
  const server = createServer((request, response) => {
    const reply = replies.get(request.url);
    if (reply === undefined) response.writeHead(404).end();
    else response.writeHead(200, { 'content-type': reply.type, 'content-length': reply.body.length, 'docker-content-digest': sha256(reply.body) }).end(request.method === 'HEAD' ? undefined : reply.body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const root = await mkdtemp(join(tmpdir(), 'whittle-build-'));
  const { write } = process.stdout;
  process.stdout.write = () => true;
  try {
    await main(['pull', `127.0.0.1:${server.address().port}/small:latest`, '--root', join(root, 'store'), '--platform', `${platform.os}/${platform.architecture}`, '--quiet']);
  } finally {
    process.stdout.write = write;
    server.closeAllConnections();
    server.close();
    await rm(root, { recursive: true, force: true });
  }
  // Without the addon there is no pull, and the build's own steps have said so.
  if (process.exitCode !== 0) process.stderr.write('the device\'s program will start more slowly: its first pull failed\n');
  process.exitCode = 0;
}

setDeviceFlags();
await makeBundle();
const { main, script } = loadDevice();
await pullSmallImage(main);
await writeFile(devicePaths.code, sealCode(script.createCachedData()));
