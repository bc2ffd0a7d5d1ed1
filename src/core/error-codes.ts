/** What the table says of one error code. */
export interface ErrorCodeFacts {
  /** Process exit code, one of `exitCodes`. */
  readonly exitCode: number;
  /** Whether the same call may succeed later without anybody changing anything. */
  readonly retryable: boolean;
  /** What the code means, for `docs/errors.md`. */
  readonly summary: string;
  /** What the user can do. */
  readonly hint: string;
}

/** Exit codes of both programs. Documented in `docs/errors.md`. */
export const exitCodes = {
  ok: 0, internal: 1, usage: 2, notFound: 3, denied: 4, network: 5, badInput: 6, storage: 7, busy: 8, interrupted: 130,
} as const;

/** Every error code of the project, in alphabetical order within its room. `docs/errors.md` is held to this table by a test. */
export const errorCodes = {
  INTERNAL: { exitCode: exitCodes.internal, retryable: false, summary: 'A defect in Whittle itself.', hint: 'Run again with --debug and report what it prints.' },
  INTERRUPTED: { exitCode: exitCodes.interrupted, retryable: true, summary: 'Stopped by a signal or by the caller.', hint: 'Run the same command again: it continues where it was.' },
  USAGE: { exitCode: exitCodes.usage, retryable: false, summary: 'A flag or argument is wrong.', hint: 'See --help.' },
  NATIVE_ADDON: { exitCode: exitCodes.internal, retryable: false, summary: 'The native addon is missing or cannot be loaded.', hint: 'Install a C++ compiler and python3 (Debian: apt install g++ make python3), then run: npm rebuild' },
  LIMIT_EXCEEDED: { exitCode: exitCodes.badInput, retryable: false, summary: 'Input is larger than a named limit allows.', hint: 'If the input is trusted, raise the limit named in the message.' },

  TAR_CORRUPT: { exitCode: exitCodes.badInput, retryable: false, summary: 'A layer is not a well-formed tar.', hint: 'Rebuild or re-push the image.' },
  TAR_UNSAFE: { exitCode: exitCodes.badInput, retryable: false, summary: 'A tar entry would reach outside its layer, or cannot be represented.', hint: 'Do not trust this image; rebuild it without that entry.' },

  DELTA_CORRUPT: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta is damaged or malformed.', hint: 'Fetch or compute the delta again.' },
  DELTA_VERSION: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta was made by a newer version of the format.', hint: 'Update Whittle on this machine.' },
  DELTA_WRONG_BASIS: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta was made for another basis than the one at hand.', hint: 'Use a delta for this basis, or pull with --no-delta.' },
  DELTA_MISMATCH: { exitCode: exitCodes.badInput, retryable: false, summary: 'What a delta rebuilt does not have the digest that the target declares.', hint: 'Pull with --no-delta; report the delta.' },
  BASIS_DAMAGED: { exitCode: exitCodes.badInput, retryable: false, summary: 'Content of the basis is not what its record says.', hint: 'Run: device verify' },

  FETCH_FAILED: { exitCode: exitCodes.network, retryable: true, summary: 'A download made no progress in several attempts.', hint: 'Check the network; the next pull continues where this one stopped.' },
  FETCH_CORRUPT: { exitCode: exitCodes.network, retryable: true, summary: 'A server or something on the way sent bytes that do not have their digest.', hint: 'Pull again, or from another place with --from; report it to whoever runs the registry.' },
} as const satisfies Record<string, ErrorCodeFacts>;

/** A stable error code. */
export type ErrorCode = keyof typeof errorCodes;
