// npm run fuzz -- [--rounds N] [--seed S]: the codec with address and undefined-behaviour sanitizers, then every parser in
// JavaScript. docs/fuzzing.md says what is done. Ends with an exit code other than 0 at the first defect.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

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
const program = join(output, 'codec_fuzz');
const sources = readdirSync(join(root, 'native', 'codec')).filter((name) => name.endsWith('.cc') && !name.endsWith('_binding.cc')).map((name) => join('native', 'codec', name));
run(process.env.CXX ?? 'g++', [
  '-std=c++17', '-g', '-O1', '-fno-sanitize-recover=all', '-fsanitize=address,undefined', '-DWHITTLE_FUZZ_MAIN', '-I', 'native',
  join('native', 'fuzz', 'codec_fuzz.cc'), ...sources, join('native', 'common', 'content.cc'), '-pthread', '-o', program,
]);
// Old and new by turns: an executable against another, text against text.
const pairs = [process.execPath, join(root, 'native', 'build', 'Release', 'whittle_server.node'), join(root, 'native', 'build', 'Release', 'whittle_device.node'), join(root, 'native', 'build', 'Release', 'whittle_server.node'), join(root, 'docs', 'format.md'), join(root, 'docs', 'format-codec.md')];
run(program, [values.rounds, ...pairs], { WHITTLE_SEED: values.seed });
if (!values['native-only']) run('npm', ['test', '--', 'test/property/fuzz-parsers.test.ts'], { WHITTLE_FUZZ_ROUNDS: values.rounds, WHITTLE_SEED: values.seed });
