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
  INTERRUPTED: { exitCode: exitCodes.interrupted, retryable: true, summary: 'Stopped by a signal or by the caller.', hint: 'Run the same command again; if it is a pull, it continues where it was.' },
  USAGE: { exitCode: exitCodes.usage, retryable: false, summary: 'A flag or argument is wrong.', hint: 'See --help.' },
  NATIVE_ADDON: { exitCode: exitCodes.internal, retryable: false, summary: 'The native addon is missing or cannot be loaded.', hint: 'Install a C++ compiler and python3 (Debian: apt install g++ make python3), then run: npm rebuild' },
  LIMIT_EXCEEDED: { exitCode: exitCodes.badInput, retryable: false, summary: 'Input is larger than a named limit allows.', hint: 'Check that this is the input you mean: ordinary images are far below the limits, which are fixed.' },

  BLOB_MISSING: { exitCode: exitCodes.notFound, retryable: false, summary: 'An image names a blob that is not where the image is.', hint: 'Push or copy the image again: it is incomplete.' },
  DIGEST_MISMATCH: { exitCode: exitCodes.badInput, retryable: false, summary: 'Content does not have the digest or size that its descriptor declares.', hint: 'Fetch it again, or from another place; if it stays so, push the image again.' },
  IMAGE_FOREIGN_LAYER: { exitCode: exitCodes.badInput, retryable: false, summary: 'An image has a foreign (nondistributable) layer, which registries do not carry.', hint: 'Build the image without foreign layers.' },
  IMAGE_INVALID: { exitCode: exitCodes.badInput, retryable: false, summary: 'Something is not an image, or its manifest, index, config or layout is malformed.', hint: 'Build or push the image again.' },
  IMAGE_MEDIA_TYPE: { exitCode: exitCodes.badInput, retryable: false, summary: 'A manifest, config or layer has a media type that is not supported.', hint: 'Use OCI or Docker schema 2 images with plain, gzip or zstd layers.' },
  IMAGE_NOT_FOUND: { exitCode: exitCodes.notFound, retryable: false, summary: 'There is no such image, tag or file.', hint: 'Check the name and the tag.' },
  IMAGE_PLATFORM: { exitCode: exitCodes.notFound, retryable: false, summary: 'An image exists, but not for the platform that is wanted.', hint: 'Name another platform with --platform os/architecture[/variant].' },
  IMAGE_UNREADABLE: { exitCode: exitCodes.storage, retryable: false, summary: 'A layout or archive could not be read or written.', hint: 'Check that the path exists, its permissions, and the disk.' },
  REGISTRY_BAD_RESPONSE: { exitCode: exitCodes.network, retryable: false, summary: 'A registry answered something that the protocol does not allow.', hint: 'Check that the host is a registry, and that no proxy on the way changes answers.' },
  REGISTRY_CREDENTIALS: { exitCode: exitCodes.denied, retryable: false, summary: 'Stored credentials could not be read.', hint: 'Check ~/.docker/config.json and the credential helper that it names, or give --creds USER:PASSWORD.' },
  REGISTRY_DELETES_OFF: { exitCode: exitCodes.denied, retryable: false, summary: 'The registry lets nobody delete manifests.', hint: 'Switch deletes on (docker-registry: storage.delete.enabled: true in config.yml), or use the registry\'s own retention rules; see docs/registries.md.' },
  REGISTRY_FORBIDDEN: { exitCode: exitCodes.denied, retryable: false, summary: 'The registry knows who asks, and refuses.', hint: 'Ask for access to the repository, or log in as somebody who has it.' },
  REGISTRY_NOT_FOUND: { exitCode: exitCodes.notFound, retryable: false, summary: 'The registry has no such repository, tag, manifest or blob.', hint: 'Check the name and the tag; some registries say this for images that need a login.' },
  REGISTRY_RATE_LIMITED: { exitCode: exitCodes.network, retryable: true, summary: 'The registry asks to come back later.', hint: 'Wait and run the same command again; a login often raises the limit.' },
  REGISTRY_TLS: { exitCode: exitCodes.network, retryable: false, summary: 'No trusted TLS connection to the registry.', hint: 'Check the certificate and the clock. A private authority is named by NODE_EXTRA_CA_CERTS=FILE.pem in the environment.' },
  REGISTRY_UNAUTHORIZED: { exitCode: exitCodes.denied, retryable: false, summary: 'The registry wants a login, or does not accept the one it got.', hint: 'Run docker login (or podman login) for this registry, or give --creds USER:PASSWORD.' },
  REGISTRY_UNAVAILABLE: { exitCode: exitCodes.network, retryable: true, summary: 'The registry has a trouble of its own.', hint: 'Wait and run the same command again.' },
  REGISTRY_UNREACHABLE: { exitCode: exitCodes.network, retryable: true, summary: 'The registry could not be reached, or the connection broke.', hint: 'Check the network and the host name; the same command continues where it was.' },

  TAR_CORRUPT: { exitCode: exitCodes.badInput, retryable: false, summary: 'A layer is not a well-formed tar.', hint: 'Rebuild or re-push the image.' },
  TAR_UNSAFE: { exitCode: exitCodes.badInput, retryable: false, summary: 'A tar entry would reach outside its layer, or cannot be represented.', hint: 'Do not trust this image; rebuild it without that entry.' },

  DELTA_CORRUPT: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta is damaged or malformed.', hint: 'Fetch or compute the delta again.' },
  DELTA_VERSION: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta is of a format version that this program does not read.', hint: 'Bring Whittle to the same version where deltas are made and where they are applied, and make the delta again.' },
  DELTA_WRONG_BASIS: { exitCode: exitCodes.badInput, retryable: false, summary: 'A delta was made for another basis than the one at hand.', hint: 'Use a delta for this basis, or pull with --no-delta.' },
  DELTA_MISMATCH: { exitCode: exitCodes.badInput, retryable: false, summary: 'What a delta rebuilt does not have the digest that the target declares.', hint: 'Pull with --no-delta; report the delta.' },
  BASIS_DAMAGED: { exitCode: exitCodes.badInput, retryable: false, summary: 'Content of the basis is not what its record says.', hint: 'Run: device verify' },

  BUDGET_EXCEEDED: { exitCode: exitCodes.denied, retryable: false, summary: 'A pull would receive more bytes than --max-bytes allows.', hint: 'Pull over a cheaper link, or allow more with --max-bytes.' },
  FETCH_FAILED: { exitCode: exitCodes.network, retryable: true, summary: 'A download made no progress in several attempts.', hint: 'Check the network; the next pull continues where this one stopped.' },
  FETCH_CORRUPT: { exitCode: exitCodes.network, retryable: true, summary: 'A server or something on the way sent bytes that do not have their digest.', hint: 'Pull again, or from another place with --from; report it to whoever runs the registry.' },

  STORAGE_FULL: { exitCode: exitCodes.storage, retryable: false, summary: 'The filesystem of the store is full, or a quota is.', hint: 'Free some space there (on a device: device gc, and device gc --unfinished 0 for what cut pulls left); where df shows space, it has no inodes for more files (df -i).' },
  STORAGE_IO: { exitCode: exitCodes.storage, retryable: false, summary: 'The disk reported an error; nothing was committed.', hint: 'Check the disk and the kernel log, then run: device verify' },
  STORAGE_PERMISSION: { exitCode: exitCodes.denied, retryable: false, summary: 'The store may not be read or written by this user.', hint: 'Run as the user who owns the store, or choose another with --root DIR.' },
  STORAGE_READ_ONLY: { exitCode: exitCodes.storage, retryable: false, summary: 'The filesystem of the store is mounted read-only.', hint: 'Remount it writable, or choose another with --root DIR.' },
  STORAGE_UNSUPPORTED: { exitCode: exitCodes.storage, retryable: false, summary: 'The filesystem of the store cannot hold what images hold, as FAT and exFAT cannot.', hint: 'Choose another with --root DIR: ext4, xfs, btrfs or f2fs.' },

  IMAGE_UNKNOWN: { exitCode: exitCodes.notFound, retryable: false, summary: 'The store has no such image or name.', hint: 'See: device images' },
  LAYER_MISMATCH: { exitCode: exitCodes.badInput, retryable: false, summary: 'A layer does not have the diffID that the image config declares.', hint: 'Pull again; if it stays so, the image is broken: rebuild or re-push it.' },
  MOUNT_FAILED: { exitCode: exitCodes.storage, retryable: false, summary: 'The image could not be mounted or unmounted.', hint: 'The message has the reason; the kernel log may have more.' },
  MOUNT_NEEDS_ROOT: { exitCode: exitCodes.denied, retryable: false, summary: 'Mounting an image needs root, and a store that root filled.', hint: 'Run as root, with an image that root pulled.' },
  STAGE_INCOMPLETE: { exitCode: exitCodes.internal, retryable: false, summary: 'A commit was asked for before every layer was there.', hint: 'Run the pull again; it continues where it was.' },
  STORE_ABSENT: { exitCode: exitCodes.notFound, retryable: false, summary: 'There is no store at this root.', hint: 'Pull an image first, or name the right root with --root DIR.' },
  STORE_BUSY: { exitCode: exitCodes.busy, retryable: true, summary: 'Another process is working on the store.', hint: 'Wait for it to end, then run the same command again.' },
  STORE_DAMAGED: { exitCode: exitCodes.storage, retryable: false, summary: 'Something in the store is not what its record says.', hint: 'Run: device verify' },
  STORE_NO_PREVIOUS: { exitCode: exitCodes.notFound, retryable: false, summary: 'The name has no previous image to go back to.', hint: 'See: device images' },
  STORE_VERSION: { exitCode: exitCodes.badInput, retryable: false, summary: 'The store was made by a newer version of Whittle.', hint: 'Update Whittle on this machine.' },

  ENGINE_DENIED: { exitCode: exitCodes.denied, retryable: false, summary: 'A container engine may not be used by this user.', hint: 'Run as root, or as a user who may use the engine.' },
  ENGINE_FAILED: { exitCode: exitCodes.storage, retryable: false, summary: 'A container engine refused a step, or answered what it should not.', hint: 'The message has the engine\'s words; its log may have more. The old image is as it was.' },
  ENGINE_UNREACHABLE: { exitCode: exitCodes.network, retryable: true, summary: 'A container engine does not answer, or went away.', hint: 'Start the engine, or check the address of its socket; the same command continues where it was.' },
  ENGINE_UNSUPPORTED: { exitCode: exitCodes.usage, retryable: false, summary: 'A container engine keeps its images in a way that is not supported.', hint: 'See docs/engines.md for the storage drivers that are.' },

  COMPUTE_FAILED: { exitCode: exitCodes.internal, retryable: true, summary: 'The process that computed a delta ended before it was done.', hint: 'Often memory: give --memory a smaller size, or fewer --jobs.' },
  SERVER_BUSY: { exitCode: exitCodes.busy, retryable: true, summary: 'Another delta-server works on the same root.', hint: 'Stop it first, or choose another --root DIR.' },
} as const satisfies Record<string, ErrorCodeFacts>;

/** A stable error code. */
export type ErrorCode = keyof typeof errorCodes;
