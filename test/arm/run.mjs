// npm run test:arm: proves that arm64 and armv7 devices rebuild the same bytes as x86-64. docs/arm.md says how.
import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fixturePairs, folderPairs, sourceName } from '../../bench/.built/bench/pairs.js';
import { hasProgram, program, runOk, withScratch } from '../../bench/.built/bench/process.js';
import { formatTable } from '../../dist/cli/output.js';
import { formatExact } from '../../dist/core/format.js';
import { programOf, servePair, updateDevice } from './device.mjs';
import { buildReplay, getNode, install, root, targets, toolsOf } from './targets.mjs';
import { record } from './trace.mjs';

const help = `Usage: npm run test:arm -- [flags]

Builds the device's native code for arm64 and armv7, runs it under qemu, and compares what comes out with this machine's.

  decoder   what a delta asks of the decoder is recorded here and replayed there by a small C++ program, without Node
  device    the whole program pulls the old version, pulls the new one by its delta, verifies it and exports it
  encoder   delta-server compute makes the same delta on arm64 (only when asked for: it is slow)

Flags:
  --parts LIST     what to run: decoder, device, encoder (default: decoder,device)
  --pairs LIST     which images of test/fixtures (default: all)
  --images DIR     other images: DIR/<pair>/old and DIR/<pair>/new, each an OCI layout with one image
  --profiles LIST  which kinds of delta: small, fast (default: both)
  --targets LIST   which machines: arm64, armv7 (default: both)
  --trap           the decoder crashes at undefined behaviour
  --cache DIR      where Node for the targets and what is built for them is kept (default: native/build/arm)
  --help           this text

Wants (Debian) g++-aarch64-linux-gnu, g++-arm-linux-gnueabihf and qemu-user-static. The parts device and encoder fetch Node for the
targets once, by npm pack, and check it against the digest in test/arm/targets.mjs.
Exit code: 0 when everything is the same, 1 when something differs or fails, 2 for wrong flags.`;

const say = (text) => { process.stdout.write(`${text}\n`); };

class Usage extends Error {}

function choice(text, known, flag) {
  const words = text.split(',');
  const wrong = words.find((word) => !known.includes(word));
  if (wrong !== undefined) throw new Usage(`--${flag}: ${JSON.stringify(wrong)} is none of ${known.join(', ')}`);
  return known.filter((word) => words.includes(word));
}

async function readFlags(words) {
  let values;
  try {
    ({ values } = parseArgs({
      args: words,
      options: {
        parts: { type: 'string', default: 'decoder,device' }, pairs: { type: 'string' }, images: { type: 'string' }, profiles: { type: 'string', default: 'small,fast' },
        targets: { type: 'string', default: 'arm64,armv7' }, trap: { type: 'boolean', default: false }, cache: { type: 'string', default: join(root, 'native/build/arm') },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    throw new Usage(error.message);
  }
  if (values.help) return null;
  const all = values.images === undefined ? await fixturePairs() : await folderPairs(values.images);
  const names = all.map((pair) => pair.name);
  const wanted = values.pairs === undefined ? names : choice(values.pairs, names, 'pairs');
  return {
    parts: choice(values.parts, ['decoder', 'device', 'encoder'], 'parts'), pairs: all.filter((pair) => wanted.includes(pair.name)),
    profiles: choice(values.profiles, ['small', 'fast'], 'profiles'), trap: values.trap, cache: values.cache,
    targets: targets.filter((target) => choice(values.targets, targets.map(({ name }) => name), 'targets').includes(target.name)),
  };
}

/** Compares bytes, as they come, with files on record that follow one another. */
class FileChecker {
  #files;
  #at = 0;
  #left = 0;
  #total = 0;
  #hash = createHash('sha256');

  constructor(files) {
    this.#files = files;
    this.#left = files[0]?.sizeBytes ?? 0;
  }

  /** Throws at the first file that differs. */
  take(chunk) {
    for (let rest = chunk; rest.length > 0;) {
      const file = this.#files[this.#at];
      if (file === undefined) throw new Error('more bytes come out than on x86-64');
      const part = rest.subarray(0, this.#left);
      this.#hash.update(part);
      rest = rest.subarray(part.length);
      this.#left -= part.length;
      this.#total += part.length;
      if (this.#left === 0) this.#endFile(file);
    }
  }

  #endFile(file) {
    const found = this.#hash.digest('hex');
    if (found !== file.sha256) throw new Error(`file ${this.#at + 1} of ${this.#files.length} (${file.sizeBytes} bytes) has other bytes`);
    this.#hash = createHash('sha256');
    this.#at++;
    this.#left = this.#files[this.#at]?.sizeBytes ?? 0;
  }

  /** Throws when files are missing. Returns the bytes compared. */
  end() {
    if (this.#at !== this.#files.length) throw new Error(`only ${this.#at} of ${this.#files.length} files came out`);
    return this.#total;
  }
}

/** Runs the replay and compares each file that it writes with what this machine decoded. Returns the bytes compared. */
async function compareReplay(command, files) {
  const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let complaint = '';
  child.stderr.on('data', (chunk) => { complaint += chunk; });
  const ended = new Promise((resolve, reject) => { child.once('error', reject).once('close', (code, signal) => resolve(code ?? signal)); });
  const checker = new FileChecker(files);
  try {
    for await (const chunk of child.stdout) checker.take(chunk);
  } catch (error) {
    child.kill();
    throw error;
  }
  const outcome = await ended;
  if (outcome !== 0) throw new Error(`the replay ended with ${outcome}: ${complaint.trim()}`);
  return checker.end();
}

/** What is compared, on every target; each row ends as "same" or with what is wrong. */
class Report {
  rows = [];
  failed = 0;

  async row(cells, measure) {
    const began = performance.now();
    let outcome;
    try {
      outcome = { ...(await measure()), result: 'same' };
    } catch (error) {
      this.failed++;
      outcome = { result: `FAILED: ${String(error.message).split('\n').filter((line) => line.trim() !== '').slice(0, 6).join(' | ')}` };
      say(`  ${cells.join(' ')}: ${error.message}`);
    }
    const number = (value) => (value === undefined ? '' : formatExact(value));
    this.rows.push([...cells, number(outcome.deltaBytes), number(outcome.files), number(outcome.bytes), `${((performance.now() - began) / 1000).toFixed(0)} s`, outcome.result]);
  }

  print() {
    say(`\n${formatTable([['machine', 'part', 'image', 'profile', 'delta bytes', 'files', 'bytes compared', 'time', 'result'], ...this.rows], { header: true })}`);
    say(this.failed === 0 ? '\nEverything is the same as on x86-64.' : `\n${this.failed} of ${this.rows.length} FAILED.`);
  }
}

async function makeDelta(words, pair, profile, path) {
  await runOk([...words, 'compute', sourceName(pair.basis), sourceName(pair.target), '--profile', profile, '-o', path]);
  return path;
}

async function runDecoder(flags, folder, report) {
  const replays = new Map();
  for (const target of flags.targets) {
    say(`building the decoder for ${target.name}`);
    replays.set(target.name, await buildReplay(target, folder, flags));
  }
  for (const pair of flags.pairs) {
    for (const profile of flags.profiles) {
      const work = join(folder, `${pair.name}-${profile}`);
      await mkdir(work);
      say(`${pair.name} ${profile}: making and recording a delta`);
      const deltaPath = await makeDelta(program('delta-server'), pair, profile, join(work, 'one.delta'));
      const deltaBytes = (await stat(deltaPath)).size;
      const trace = await record({ deltaPath, basis: sourceName(pair.basis), target: sourceName(pair.target), folder: work });
      for (const target of flags.targets) {
        say(`${pair.name} ${profile}: replaying it on ${target.name}`);
        await report.row([target.name, 'decoder', pair.name, profile], async () => ({
          deltaBytes, files: trace.files.length, bytes: await compareReplay([target.emulator, replays.get(target.name), trace.calls, trace.content], trace.files),
        }));
      }
    }
  }
}

async function runDevice(flags, folder, installed, report) {
  for (const pair of flags.pairs) {
    for (const profile of flags.profiles) {
      const served = join(folder, `served-${pair.name}-${profile}`);
      const service = await servePair(pair, profile, served);
      try {
        for (const target of flags.targets) {
          const work = join(served, target.name);
          await mkdir(work, { recursive: true });
          say(`the device program on ${target.name}`);
          const { node, installation } = installed.get(target.name);
          await report.row([target.name, 'device', pair.name, profile], () => updateDevice({ pair, profile, service, folder: work, say, device: programOf(target, node, installation, 'device') }));
        }
      } finally {
        await service.stop();
      }
    }
  }
}

async function runEncoder(flags, folder, installed, report) {
  const target = flags.targets.find(({ name }) => name === 'arm64');
  if (target === undefined) throw new Usage('--parts encoder: wants --targets arm64');
  const { node, installation } = installed.get(target.name);
  for (const pair of flags.pairs) {
    for (const profile of flags.profiles) {
      say(`${pair.name} ${profile}: making its delta on ${target.name}`);
      const name = (where) => join(folder, `${pair.name}-${profile}-${where}.delta`);
      await report.row([target.name, 'encoder', pair.name, profile], async () => {
        const here = await readFile(await makeDelta(program('delta-server'), pair, profile, name('here')));
        const there = await readFile(await makeDelta(programOf(target, node, installation, 'delta-server'), pair, profile, name('there')));
        if (!here.equals(there)) throw new Error(`the delta has ${there.length} bytes there and ${here.length} here, and they differ`);
        return { deltaBytes: here.length, bytes: here.length };
      });
    }
  }
}

async function main(flags, folder) {
  const wanting = flags.targets.flatMap(toolsOf).filter(([tool]) => !hasProgram(tool));
  if (wanting.length > 0) throw new Error(`wants ${wanting.map(([tool, debian]) => `${tool} (Debian: apt install ${debian})`).join(', ')}`);
  const report = new Report();
  // What is compared here and there has to be of the same sources.
  await runOk([process.execPath, join(root, 'native/build.mjs')]);
  if (flags.parts.includes('decoder')) await runDecoder(flags, folder, report);
  const installed = new Map();
  if (flags.parts.includes('device') || flags.parts.includes('encoder')) {
    const addons = ['whittle_device', ...(flags.parts.includes('encoder') ? ['whittle_server'] : [])];
    for (const target of flags.targets) {
      const node = await getNode(target, flags.cache, say);
      installed.set(target.name, { node, installation: await install(target, node, flags.cache, addons, say) });
    }
  }
  if (flags.parts.includes('device')) await runDevice(flags, folder, installed, report);
  if (flags.parts.includes('encoder')) await runEncoder(flags, folder, installed, report);
  report.print();
  if (report.failed > 0) process.exitCode = 1;
}

try {
  const flags = await readFlags(process.argv.slice(2));
  if (flags === null) say(help);
  else await withScratch('whittle-arm-', (folder) => main(flags, folder), (message) => { console.error(`test:arm: ${message}`); });
} catch (error) {
  if (!(error instanceof Usage)) throw error;
  console.error(`test:arm: ${error.message}\n\n${help}`);
  process.exitCode = 2;
}
