'use strict';

/** One arrow of the house: modules under `from` may import nothing of `rooms`. */
const wall = (name, comment, from, to) => ({ name, comment, severity: 'error', from: { path: from }, to: { path: to } });

/** Rooms of src/ as one alternation. */
const rooms = (...names) => `^src/(${names.join('|')})/`;

module.exports = {
  forbidden: [
    wall('core-is-the-ground', 'core imports no other room', '^src/core/', '^src/(?!core/)'),
    wall('atomic-stands-on-core', 'atomic knows no images', '^src/atomic/', '^src/(?!core/|atomic/)'),
    wall('oci-stands-on-core', 'oci is pure data', '^src/oci/', '^src/(?!core/|oci/)'),
    wall('tar-stands-on-core', 'tar is a format, nothing else', '^src/tar/', '^src/(?!core/|tar/)'),
    wall('delta-below-applier-and-server', 'delta knows no network, no store, no program', '^src/delta/', rooms('registry', 'applier', 'server', 'cli')),
    wall('registry-below-applier-and-server', 'registry knows no deltas, no store, no program', '^src/registry/', rooms('delta', 'applier', 'server', 'cli')),
    wall('applier-without-server', 'a device installs no server code', '^src/applier/', rooms('server', 'cli')),
    wall('server-without-applier', 'the server installs no device code', '^src/server/', rooms('applier', 'cli')),
    wall('decoder-without-encoder', 'the encoder is for the server only', '^src/(applier|delta/[^/]+\\.ts$)', '^src/delta/encode/'),
    {
      name: 'device-reaches-no-encoder', comment: 'nothing that the device program loads, however far away, is server code',
      severity: 'error', from: { path: '^src/cli/device\\.ts$' }, to: { path: '^src/(server/|delta/encode/|cli/(delta-)?server)', reachable: true },
    },
    {
      name: 'server-reaches-no-applier', comment: 'nothing that the server program loads is device code',
      severity: 'error', from: { path: '^src/cli/delta-server\\.ts$' }, to: { path: '^src/(applier/|cli/device)', reachable: true },
    },
    {
      name: 'one-file-loads-the-addons', comment: 'createRequire is how an ES module loads an addon',
      severity: 'error', from: { path: '^src/', pathNot: '^src/core/native\\.ts$' }, to: { path: '^((node:)?module|native/|.*\\.node)$|^native/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-circles', comment: 'modules that need each other are one module',
      severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    { name: 'everything-resolves', comment: 'an import that leads nowhere hides every rule behind it', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'only-declared-packages', comment: 'the product uses its own dependencies, never those of the tests',
      severity: 'error', from: { path: '^src/' }, to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown', 'npm-optional'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'], extensions: ['.ts', '.js', '.mjs', '.cjs', '.json', '.d.ts'] },
  },
};
