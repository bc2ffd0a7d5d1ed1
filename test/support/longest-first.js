import SequencerModule from '@jest/test-sequencer';

const Sequencer = SequencerModule.default ?? SequencerModule;

/** Starts the test of the corpus before all others: it takes as long as the rest together, and would else run alone at the end. */
export default class LongestFirst extends Sequencer {
  sort(tests) {
    const rank = (test) => (test.path.endsWith('corpus.test.ts') ? 0 : 1);
    return [...super.sort(tests)].sort((a, b) => rank(a) - rank(b));
  }
}
