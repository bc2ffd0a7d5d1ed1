'use strict';
const { existsSync } = require('node:fs');
const { join, sep } = require('node:path');

/** Resolves our own `./x.js` specifiers to the TypeScript source `./x.ts`, as the compiler does; leaves packages alone. */
module.exports = (request, options) => {
  const ours = !options.basedir.split(sep).includes('node_modules');
  if (ours && request.startsWith('.') && request.endsWith('.js')) {
    const source = join(options.basedir, `${request.slice(0, -3)}.ts`);
    if (existsSync(source)) return source;
  }
  return options.defaultResolver(request, options);
};
