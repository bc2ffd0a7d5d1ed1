// Builds the native addons with node-gyp: one line on success, one line and a log on failure, nothing to do when up to date.
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const nativeDirectory = dirname(fileURLToPath(import.meta.url));
const buildDirectory = join(nativeDirectory, 'build');
const outputs = ['whittle_device.node', 'whittle_server.node'].map((name) => join(buildDirectory, 'Release', name));
const stampPath = join(buildDirectory, 'built-for');
const logPath = join(buildDirectory, 'build.log');
const lockPath = join(buildDirectory, 'build.lock');
const stamp = `${process.platform} ${process.arch}\n`;

/** Newest modification time of any source below `directory`, its directories included: a removed file counts as a change. */
function newestSourceMs(directory) {
  let newest = statSync(directory).mtimeMs;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestSourceMs(path));
    else newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}

function isUpToDate() {
  if (!outputs.every((path) => existsSync(path))) return false;
  if (!existsSync(stampPath) || readFileSync(stampPath, 'utf8') !== stamp) return false;
  const sources = readdirSync(nativeDirectory).filter((name) => name !== 'build').map((name) => join(nativeDirectory, name));
  const newest = Math.max(...sources.map((path) => (statSync(path).isDirectory() ? newestSourceMs(path) : statSync(path).mtimeMs)));
  return statSync(stampPath).mtimeMs > newest;
}

/** Where Node's headers are when they are installed beside Node itself; node-gyp downloads them otherwise. */
function nodeDirectory() {
  const prefixes = [dirname(dirname(process.execPath)), '/usr'];
  return prefixes.find((prefix) => existsSync(join(prefix, 'include', 'node', 'node_api.h')));
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Two builds in one directory would spoil each other: the second waits for the first. */
function lock() {
  mkdirSync(buildDirectory, { recursive: true });
  for (;;) {
    try {
      const fd = openSync(lockPath, 'wx');
      writeSync(fd, String(process.pid));
      closeSync(fd);
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 250);
    try {
      const owner = Number(readFileSync(lockPath, 'utf8'));
      if (!isAlive(owner)) rmSync(lockPath, { force: true });
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
}

function build() {
  const nodeGyp = join(dirname(createRequire(import.meta.url).resolve('node-gyp/package.json')), 'bin', 'node-gyp.js');
  const nodedir = nodeDirectory();
  const args = [nodeGyp, 'configure', 'build', `--directory=${nativeDirectory}`, ...(nodedir ? [`--nodedir=${nodedir}`] : [])];
  const started = new Date();
  const result = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024, env: { ...process.env, JOBS: process.env.JOBS ?? 'max' } });
  mkdirSync(buildDirectory, { recursive: true });
  writeFileSync(logPath, `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ? String(result.error) : ''}`);
  if (result.status !== 0 || !outputs.every((path) => existsSync(path))) {
    console.error(`whittle: building the native addons failed: it needs a C++17 compiler, make and python3 (Debian: apt install g++ make python3); full log: ${logPath}`);
    return 1;
  }
  // Sources that changed while the compiler ran are newer than the stamp's contents claim: date it to the start.
  writeFileSync(stampPath, stamp);
  utimesSync(stampPath, started, started);
  console.log(`whittle: native addons built for ${stamp.trim()}`);
  return 0;
}

function main() {
  lock();
  try {
    return isUpToDate() ? 0 : build();
  } finally {
    rmSync(lockPath, { force: true });
  }
}

process.exitCode = main();
