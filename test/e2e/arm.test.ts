import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { projectRoot, run, runOk } from '../../bench/process.js';
import { testWithTools } from '../support/tools.js';

const script = [process.execPath, join(projectRoot, 'test/arm/run.mjs')];

/** What `npm run test:arm` takes besides. No download: what comes from npm is for runs by hand. */
testWithTools('aarch64-linux-gnu-g++', 'arm-linux-gnueabihf-g++', 'qemu-aarch64-static', 'qemu-arm-static')(
  'the decoder built for arm64 and armv7 gives the bytes that it gives here, from deltas of both profiles',
  async () => {
    const { stdout } = await runOk([...script, '--parts', 'decoder', '--pairs', 'alpine,esbuild,tinycore']);
    expect(stdout).toContain('Everything is the same as on x86-64.');
    const rows = stdout.split('\n').filter((line) => /^(arm64|armv7) +decoder +(alpine|esbuild|tinycore) +(small|fast) .* same$/.test(line));
    expect(rows).toHaveLength(12);
  },
  // Two optimized builds of the decoder, on a machine that may be busy.
  600_000,
);

test('unknown machines and parts are refused with a word', async () => {
  expect(await run([...script, '--targets', 'arm64,z80'])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('"z80" is none of arm64, armv7') as unknown });
  expect(await run([...script, '--parts', 'all'])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('"all" is none of decoder, device, encoder') as unknown });
});
