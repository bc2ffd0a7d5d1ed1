#!/usr/bin/env node
try {
  const { main } = await import('../dist/cli/delta-server.js');
  await main(process.argv.slice(2));
} catch (error) {
  if (error?.code === 'EMFILE' || error?.code === 'ENFILE') {
    process.stderr.write(`delta-server: too many open files, before it began (${error.code})\n  Raise the limit (ulimit -n, or LimitNOFILE of the service).\n`);
    process.exit(1);
  }
  if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
  process.stderr.write(`delta-server: this installation is not built (${String(error.message).split('\n')[0]})\n  Run: npm install && npm run build\n`);
  process.exitCode = 1;
}
