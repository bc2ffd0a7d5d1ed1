/**
 * All tests, as four projects: `unit` (one room at a time), `property` (laws under random input), `e2e`
 * (the built programs against real registries, files and processes) and `powercut` (what is left when the power goes).
 */
const shared = {
  testEnvironment: '<rootDir>/test/support/environment.js',
  resolver: '<rootDir>/test/support/resolver.cjs',
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', {
      jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
      module: { type: 'es6' },
      sourceMaps: 'inline',
    }],
  },
  // Anything that a build or a test writes is no source of modules or tests.
  modulePathIgnorePatterns: ['<rootDir>/dist/', '<rootDir>/test/powercut/.built/', '<rootDir>/native/build/', '<rootDir>/coverage/'],
};

const project = (name, extra = {}) => ({
  ...shared,
  displayName: name,
  testMatch: [`<rootDir>/test/${name}/**/*.test.ts`],
  ...extra,
});

export default {
  maxWorkers: 2,
  testTimeout: 240_000,
  testSequencer: '<rootDir>/test/support/longest-first.js',
  projects: [
    project('unit'),
    project('property'),
    // The end-to-end tests run bin/*.js, which is the built product: it is brought up to date once, before them.
    project('e2e', { globalSetup: '<rootDir>/test/support/build-once.js', setupFilesAfterEnv: ['<rootDir>/test/support/e2e-setup.js'] }),
    // What a power cut leaves: the harnesses of test/powercut, small runs of them. They run the built programs too.
    project('powercut', { globalSetup: '<rootDir>/test/support/build-once.js' }),
  ],
};
