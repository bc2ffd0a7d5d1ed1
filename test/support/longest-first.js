import SequencerModule from '@jest/test-sequencer';

const Sequencer = SequencerModule.default ?? SequencerModule;

/** Those that take minutes, longest first: the test of the corpus takes as long as the rest together, and would else run alone at the end. */
const long = ['e2e/corpus', 'powercut/sim', 'powercut/disk', 'e2e/engines', 'e2e/inject', 'e2e/device', 'e2e/network-scripts', 'unit/delta/round-trip', 'e2e/publish'];

/** Starts long tests before short ones, so that no worker is left alone with one at the end. */
export default class LongestFirst extends Sequencer {
  sort(tests) {
    const rank = (test) => {
      const found = long.findIndex((name) => test.path.includes(`/${name}`));
      return found < 0 ? long.length : found;
    };
    return [...super.sort(tests)].sort((a, b) => rank(a) - rank(b));
  }
}
