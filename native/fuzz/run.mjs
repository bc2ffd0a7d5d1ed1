// npm run fuzz -- [--rounds N] [--seed S]: the codec with address and undefined-behaviour sanitizers, then every parser in
// JavaScript. docs/fuzzing.md says what is done. Ends with an exit code other than 0 at the first defect.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliCompressSync, constants, deflateRawSync } from 'node:zlib';
import { transformSync } from '@swc/core';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '2000' }, seed: { type: 'string', default: '1' }, 'native-only': { type: 'boolean', default: false } } });
for (const [name, value] of [['rounds', values.rounds], ['seed', values.seed]]) {
  if (!/^\d{1,9}$/.test(value)) throw new Error(`--${name}: not a number: ${value}`);
}

function run(command, args, env = {}) {
  const began = performance.now();
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  console.log(`${command} ended with ${String(status ?? signal ?? error)} after ${((performance.now() - began) / 1000).toFixed(0)} s`);
  if (status !== 0) process.exit(1);
}

const output = join(root, 'native', 'build', 'fuzz');
mkdirSync(output, { recursive: true });

/** The sources of a directory of native/, without what ties them to Node. */
const sourcesOf = (directory) => readdirSync(join(root, 'native', directory)).filter((name) => name.endsWith('.cc') && !name.endsWith('_binding.cc')).map((name) => join('native', directory, name));

/** Builds `native/fuzz/<name>.cc` with sanitizers. */
function build(name, sources) {
  const program = join(output, name);
  run(process.env.CXX ?? 'g++', [
    '-std=c++17', '-g', '-O1', '-fno-sanitize-recover=all', '-fsanitize=address,undefined', '-DWHITTLE_FUZZ_MAIN', '-I', 'native',
    join('native', 'fuzz', `${name}.cc`), ...sources, join('native', 'common', 'content.cc'), '-pthread', '-o', program,
  ]);
  return program;
}

const codec = build('codec_fuzz', sourcesOf('codec'));
const [brotli, deflate] = ['brotli', 'deflate'].map((format) => build(`${format}_fuzz`, [...sourcesOf(format), join('native', 'codec', 'mixing.cc')]));

/** Modules of the tests that make small programs, whole other than the pieces of large ones. */
async function smallPrograms() {
  const modules = ['elf-parts', 'tiny-go', 'tiny-exceptions', 'tiny-arm', 'tiny-object', 'tiny-elf', 'tiny-kernel', 'tiny-riscv', 'tiny-wasm'];
  for (const name of modules) {
    const { code } = transformSync(readFileSync(join(root, 'test', 'support', `${name}.ts`), 'utf8'), { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' } });
    writeFileSync(join(output, `${name}.js`), code);
  }
  // The programs import each other as modules do.
  writeFileSync(join(output, 'package.json'), '{"type":"module"}\n');
  const [, go, exceptions, arm, object, , kernel, riscv, wasm] = await Promise.all(modules.map((name) => import(pathToFileURL(join(output, `${name}.js`)).href)));
  return { ...go, ...exceptions, ...arm, ...object, ...kernel, ...riscv, ...wasm };
}

/** Two versions of each small program, written below `output`. */
async function smallPairs() {
  const { tinyGo, tinyExceptions, tinyArm, tinyObject, tinyKernel, tinyRiscv, tinyWasm } = await smallPrograms();
  const made = (name, shift, file) => {
    const path = join(output, `${name}-${String(shift)}`);
    writeFileSync(path, file);
    return path;
  };
  const each = (count, make) => Array.from({ length: count }, (_, at) => make(at));
  const versions = [0, 3].map((shift) => [
    made('go', shift, tinyGo(each(60 + shift, (at) => ({ codeBytes: 32 + 16 * ((at * 7 + shift) % 9), nameBytes: 3 + ((at * 5 + shift) % 20), valueBytes: 2 + ((at + shift) % 7) }))).file),
    made('exceptions', shift, tinyExceptions(each(30 + shift, (at) => ({ calls: 5 + ((at + shift) % 40), gapBytes: 16 * ((at * 7 + shift) % 30) }))).file),
    ...[false, true].map((isThumb) => made(isThumb ? 'thumb' : 'arm', shift, tinyArm({ sizes: each(100 + shift, (at) => 64 + 16 * ((at * 7 + shift) % 9)), isThumb, addsDistances: true, hasIndex: true }).file)),
    ...['x86-64', 'aarch64', 'i386', 'arm'].map((machine) => made(`object-${machine}`, shift, tinyObject(machine, each(60 + shift, (at) => 64 + 16 * ((at * 7 + shift) % 9)), 1 + shift).file)),
    ...[false, true].map((is64) => made(is64 ? 'riscv64' : 'riscv32', shift, tinyRiscv({ sizes: each(100 + shift, (at) => 64 + 16 * ((at * 7 + shift) % 9)), references: ['jal', 'call', 'address', 'load', 'store', 'branch', 'short jump'], is64 }).file)),
    made('wasm', shift, tinyWasm({ functions: each(200 + shift, (at) => at * 3), references: ['call', 'indirect call', 'global', 'constant', 'offset', 'element', 'signature', 'word'], more: shift })),
    made('kernel', shift, tinyKernel(each(60 + shift, (at) => 64 + 16 * ((at * 7 + shift) % 9)))),
  ]);
  return versions[0].flatMap((path, at) => [path, versions[1][at]]);
}

/** Programs that say they are for another machine, written below `output`: what code of it is made of is read as that. */
function forMachine(machine) {
  return ['whittle_server.node', 'whittle_device.node'].map((name) => {
    const bytes = readFileSync(join(root, 'native', 'build', 'Release', name));
    bytes.writeUInt16LE(machine, 18);
    const path = join(output, `machine-${String(machine)}-${name}`);
    writeFileSync(path, bytes);
    return path;
  });
}

/** What streams hold: text, a program, noise, one byte, nothing; written below `output`. */
function plains() {
  const text = readFileSync(join(root, 'docs', 'format.md'));
  const library = readFileSync(join(root, 'native', 'build', 'Release', 'whittle_device.node')).subarray(0, 30_000);
  const contents = { text: text.subarray(0, 20_000), library, noise: createHash('sha512').update('noise').digest(), zeros: Buffer.alloc(20_000), empty: Buffer.alloc(0) };
  return Object.entries(contents).map(([name, plain]) => {
    const path = join(output, `${name}.plain`);
    writeFileSync(path, plain);
    return { name, plain, path };
  });
}

/** Streams and their texts, by turns: one of each text for each of `count` ways to compress it, written below `output`. */
function streamPairs(extension, count, compress) {
  return plains().flatMap(({ name, plain, path }) => Array.from({ length: count }, (_, way) => {
    const stream = join(output, `${name}-${String(way)}.${extension}`);
    writeFileSync(stream, compress(plain, way));
    return [stream, path];
  }).flat());
}

/** Brotli of all qualities. */
const brotliPairs = () => streamPairs('br', 12, (plain, quality) => {
  const params = { [constants.BROTLI_PARAM_QUALITY]: quality, [constants.BROTLI_PARAM_LGWIN]: 10 + ((quality * 5) % 15), [constants.BROTLI_PARAM_MODE]: quality % 3, [constants.BROTLI_PARAM_NPOSTFIX]: quality % 4 };
  return brotliCompressSync(plain, { params });
});

/** Deflate of all levels and strategies, with blocks of all sizes. */
const deflatePairs = () => streamPairs('deflate', 20, (plain, way) => deflateRawSync(plain, { level: way % 10, memLevel: 1 + (way % 9), windowBits: 9 + (way % 7), strategy: way % 5 }));

// Old and new by turns: an executable against another, text against text.
const pairs = [process.execPath, join(root, 'native', 'build', 'Release', 'whittle_server.node'), join(root, 'native', 'build', 'Release', 'whittle_device.node'), join(root, 'native', 'build', 'Release', 'whittle_server.node'), join(root, 'docs', 'format.md'), join(root, 'docs', 'format-codec.md'), ...(await smallPairs()), ...forMachine(183), ...forMachine(40), ...forMachine(243)];
run(codec, [values.rounds, ...pairs], { WHITTLE_SEED: values.seed });
run(brotli, [values.rounds, ...brotliPairs()], { WHITTLE_SEED: values.seed });
run(deflate, [values.rounds, ...deflatePairs()], { WHITTLE_SEED: values.seed });
if (!values['native-only']) run('npm', ['test', '--', 'test/property/fuzz-parsers.test.ts'], { WHITTLE_FUZZ_ROUNDS: values.rounds, WHITTLE_SEED: values.seed });
