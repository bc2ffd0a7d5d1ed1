#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';

// A device has little memory: left alone, V8's young generation grows until garbage buffers fill 40 MiB more, and the old one
// doubles before it is collected, which is another 30 MiB. Measured on full pulls; it costs no time that shows.
setFlagsFromString('--semi-space-growth-factor=1');
setFlagsFromString('--heap-growing-percent=30');
try {
  const { main } = await import('../dist/bundle/device.js');
  await main(process.argv.slice(2));
} catch (error) {
  if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  process.stderr.write(`device: this installation is not built (${String(error.message).split('\n')[0]})\n  Run: npm install && npm run build\n`);
  process.exitCode = 1;
}
