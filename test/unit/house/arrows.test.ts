import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('../../..', import.meta.url));

interface Dependency { module: string; resolved: string; dependencyTypes: string[]; couldNotResolve: boolean }
interface Cruise {
  modules: { source: string; dependencies: Dependency[] }[];
  summary: { violations: { rule: { name: string }; from: string }[]; totalCruised: number };
}

/** Runs dependency-cruiser on the `src` of a folder; its exit code is not looked at, its findings are. */
function cruise(folder: string): Promise<Cruise> {
  const args = [join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs'), '--config', '.dependency-cruiser.cjs', '-T', 'json', 'src'];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, { cwd: folder, maxBuffer: 64 << 20 }, (_error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Cruise);
      } catch {
        reject(new Error(`dependency-cruiser gave no JSON: ${stderr}`));
      }
    });
  });
}

let house: Cruise;
beforeAll(async () => {
  house = await cruise(root);
});

describe('the arrows between the rooms', () => {
  test('the rules see the modules, and none is broken', () => {
    expect(house.summary.totalCruised).toBeGreaterThan(20);
    const ours = house.modules.filter((module) => module.source.startsWith('src/'));
    expect(ours.length).toBeGreaterThan(20);
    // The imports were followed too: TypeScript that it could not read would have none.
    expect(ours.flatMap((module) => module.dependencies).filter((to) => to.resolved.startsWith('src/')).length).toBeGreaterThan(ours.length);
    expect(house.summary.violations).toEqual([]);
  });

  /** A module that must not exist, what it imports, and the rule that must say so. */
  const forbidden: [rule: string, at: string, specifier: string][] = [
    ['core-is-the-ground', 'src/core/probe-1.ts', '../tar/wall.js'],
    ['atomic-stands-on-core', 'src/atomic/probe-1.ts', '../tar/wall.js'],
    ['oci-stands-on-core', 'src/oci/probe-1.ts', '../tar/wall.js'],
    ['tar-stands-on-core', 'src/tar/probe-1.ts', '../delta/wall.js'],
    ['delta-below-applier-and-server', 'src/delta/probe-1.ts', '../registry/wall.js'],
    ['delta-below-applier-and-server', 'src/delta/encode/probe-1.ts', '../../server/wall.js'],
    ['registry-below-applier-and-server', 'src/registry/probe-1.ts', '../delta/wall.js'],
    ['registry-below-applier-and-server', 'src/registry/probe-2.ts', '../applier/wall.js'],
    ['applier-without-server', 'src/applier/probe-1.ts', '../server/wall.js'],
    ['applier-without-server', 'src/applier/probe-2.ts', '../cli/wall.js'],
    ['server-without-applier', 'src/server/probe-1.ts', '../applier/wall.js'],
    ['decoder-without-encoder', 'src/applier/probe-3.ts', '../delta/encode/wall.js'],
    ['decoder-without-encoder', 'src/delta/probe-2.ts', './encode/wall.js'],
    ['device-reaches-no-encoder', 'src/cli/device.ts', './probe-between.js'],
    ['server-reaches-no-applier', 'src/cli/delta-server.ts', '../applier/wall.js'],
    ['one-file-loads-the-addons', 'src/server/probe-2.ts', 'node:module'],
    ['no-circles', 'src/core/circle-1.ts', './circle-2.js'],
    ['everything-resolves', 'src/core/probe-2.ts', './nowhere.js'],
    ['only-declared-packages', 'src/server/probe-3.ts', 'tar-stream'],
  ];

  let copy: string;
  let broken: Cruise;
  beforeAll(async () => {
    copy = await mkdtemp(join(tmpdir(), 'whittle-arrows-'));
    for (const file of ['tsconfig.json', '.dependency-cruiser.cjs', 'package.json']) await cp(join(root, file), join(copy, file));
    await symlink(join(root, 'node_modules'), join(copy, 'node_modules'));
    const write = async (path: string, text: string): Promise<void> => {
      await mkdir(dirname(join(copy, path)), { recursive: true });
      await writeFile(join(copy, path), text);
    };
    for (const room of ['core', 'tar', 'delta', 'delta/encode', 'registry', 'server', 'applier', 'cli']) await write(`src/${room}/wall.ts`, 'export const wall = 1;\n');
    await write('src/core/circle-2.ts', "export * from './circle-1.js';\n");
    await write('src/cli/probe-between.ts', "export * from '../server/wall.js';\n");
    for (const [, at, specifier] of forbidden) await write(at, `import * as forbidden from '${specifier}';\nexport const probe = forbidden;\n`);
    // What is allowed stays green, or the walls would prove nothing.
    await write('src/applier/fine.ts', "export * from '../delta/wall.js';\nexport * from '../registry/wall.js';\nexport * from '../core/wall.js';\n");
    broken = await cruise(copy);
  });
  afterAll(async () => {
    await rm(copy, { recursive: true, force: true });
  });

  test.each(forbidden)('%s: %s may not import %s', (rule, at) => {
    const from = rule === 'no-circles' ? /^src\/core\/circle-[12]\.ts$/ : new RegExp(`^${at}$`);
    expect(broken.summary.violations.filter((violation) => from.test(violation.from)).map((violation) => violation.rule.name)).toContain(rule);
  });

  test('every rule is tried, and what is allowed stays green', () => {
    expect(new Set(broken.summary.violations.map((violation) => violation.rule.name))).toEqual(new Set(forbidden.map(([rule]) => rule)));
    expect(broken.summary.violations.filter((violation) => violation.from === 'src/applier/fine.ts')).toEqual([]);
  });
});

/** Everything that a source module reaches: our modules, and the first step outside them. */
function reach(from: string): { modules: string[]; packages: string[]; builtins: string[] } {
  const bySource = new Map(house.modules.map((module) => [module.source, module]));
  const seen = new Set<string>([from]);
  const packages = new Set<string>();
  const builtins = new Set<string>();
  for (const source of seen) {
    for (const to of bySource.get(source)?.dependencies ?? []) {
      if (to.dependencyTypes.includes('type-only')) continue;
      if (to.resolved.startsWith('src/')) seen.add(to.resolved);
      else if (to.dependencyTypes.includes('core')) builtins.add(to.resolved);
      else packages.add(to.module.split('/').slice(0, to.module.startsWith('@') ? 2 : 1).join('/'));
    }
  }
  return { modules: [...seen], packages: [...packages].sort(), builtins: [...builtins].sort() };
}

/** What a device may install, and nothing else. Each is a choice: add one here with its reason. */
const deviceAllowList = [
  '@bufbuild/protobuf', // its wire format, in which containerd is spoken to
  'cli-progress', // the progress bar
  'commander', // the command line
  'p-retry', // retries with backoff and jitter
  'undici', // HTTP with ranges and timeouts
  '@noble/hashes', // MD5 where OpenSSL has none
  'pako', // members of zips, compressed as stock zlib does
  'zstd-napi', // zstd layers
];

describe('what a device installs', () => {
  test('no server code and only allowed packages', async () => {
    const { modules, packages } = reach('src/cli/device.ts');
    expect(modules.length).toBeGreaterThan(20);
    expect(modules.filter((module) => /^src\/(server|delta\/encode)\//.test(module))).toEqual([]);
    expect(packages.filter((name) => !deviceAllowList.includes(name))).toEqual([]);
    const declared = (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }).dependencies;
    expect(packages.filter((name) => !(name in declared))).toEqual([]);
  });

  test('the server program is seen too, and reaches the encoder', () => {
    const { modules } = reach('src/cli/delta-server.ts');
    expect(modules.some((module) => module.startsWith('src/delta/encode/'))).toBe(true);
    expect(modules.filter((module) => module.startsWith('src/applier/'))).toEqual([]);
  });
});
