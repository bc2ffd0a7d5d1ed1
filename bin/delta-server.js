#!/usr/bin/env node
'use strict';

const { start } = require('./start.js');

start('delta-server', async () => (await import('../dist/cli/delta-server.js')).main).catch((error) => {
  if (error?.code !== 'EMFILE' && error?.code !== 'ENFILE') throw error;
  process.stderr.write(`delta-server: too many open files, before it began (${error.code})\n  Raise the limit (ulimit -n, or LimitNOFILE of the service).\n`);
  process.exit(1);
});
