#!/usr/bin/env node
try {
  const { main } = await import('../dist/cli/device.js');
  await main(process.argv.slice(2));
} catch (error) {
  if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  process.stderr.write(`device: this installation is not built (${String(error.message).split('\n')[0]})\n  Run: npm install && npm run build\n`);
  process.exitCode = 1;
}
