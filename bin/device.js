#!/usr/bin/env node
import { loadDevice, setDeviceFlags } from './device-bundle.js';

setDeviceFlags();
try {
  await loadDevice().main(process.argv.slice(2));
} catch (error) {
  if (error?.code !== 'ENOENT' && error?.code !== 'MODULE_NOT_FOUND') throw error;
  process.stderr.write(`device: this installation is not built (${String(error.message).split('\n')[0]})\n  Run: npm install && npm run build\n`);
  process.exitCode = 1;
}
