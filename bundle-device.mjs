// Puts the device's program into one file, dist/bundle/device.js: a device starts it for every pull, and reading some 250 modules
// takes longer than a small update. Its depth below the package's root is that of the modules it is made of, which find the addon and package.json by it.
import { build } from 'esbuild';

await build({
  entryPoints: ['dist/cli/device.js'],
  outfile: 'dist/bundle/device.js',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  // Names stay readable, for the stacks of --debug.
  minifySyntax: true,
  minifyWhitespace: true,
  keepNames: false,
  legalComments: 'eof',
  external: ['zstd-napi'],
  // CommonJS packages inside ask for Node's own modules.
  banner: { js: 'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);' },
  logLevel: 'warning',
});
