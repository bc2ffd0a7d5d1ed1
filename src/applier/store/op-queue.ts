import { isSystemError, type Attributes, type BatchOp, type BatchResult, type DurableFs } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';

const opsPerBatch = 160;
const bytesPerBatch = 512 * 1024;
/** Small files' contents of one batch. */
const arenaBytes = 512 * 1024;

/** Errors with which a filesystem says that it cannot hold an attribute, as opposed to being broken or full. */
const unsupported = new Set(['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL', 'ERANGE', 'E2BIG', 'ENOSYS']);

function contentBytes(op: BatchOp): number {
  return op.op === 'putFile' ? op.content.length : 64;
}

function attributesOfOp(op: BatchOp): Attributes {
  return 'attributes' in op ? op.attributes : {};
}

/**
 * Collects filesystem steps and runs them in batches, one batch in flight while the next is collected. Attributes that
 * the system refuses are noted in `skipped` (names as in `BatchResult`), unless the disk is full or broken.
 */
export class OpQueue {
  #ops: BatchOp[] = [];
  #bytes = 0;
  #running: Promise<void> | null = null;
  #arena = Buffer.allocUnsafeSlow(arenaBytes);
  #spareArena = Buffer.allocUnsafeSlow(arenaBytes);
  #arenaUsed = 0;
  #failure: { readonly error: unknown } | null = null;
  readonly skipped = new Set<string>();

  constructor(
    private readonly fs: DurableFs,
    /** Called for each step that was run. */
    private readonly onResult: (op: BatchOp, result: BatchResult) => void,
    /** May answer a failed step by doing it in another way; false leaves the error as it is. */
    private readonly onFailure: (op: BatchOp, error: unknown) => Promise<boolean>,
  ) {}

  /** Adds a step. A promise only when a batch is full: wait for it before the next step. */
  add(op: BatchOp): Promise<void> | undefined {
    this.#ops.push(op);
    this.#bytes += contentBytes(op);
    return this.#ops.length < opsPerBatch && this.#bytes < bytesPerBatch ? undefined : this.#next();
  }

  /** Waits until at most one batch is in flight, and starts the one that was collected. */
  async #next(): Promise<void> {
    await this.#settle();
    this.#start();
  }

  /** Memory for the content of the next step to be added; of at most `arenaBytes`. It is reused after that step was run. */
  async allocate(sizeBytes: number): Promise<Buffer> {
    if (this.#arenaUsed + sizeBytes > arenaBytes) await this.#next();
    return this.#take(sizeBytes);
  }

  /** The same of `content`, which is copied; undefined when there is no room for it before the steps so far are run. */
  keep(content: Buffer): Buffer | undefined {
    if (this.#arenaUsed + content.length > arenaBytes) return undefined;
    const kept = this.#take(content.length);
    content.copy(kept);
    return kept;
  }

  #take(sizeBytes: number): Buffer {
    const start = this.#arenaUsed;
    this.#arenaUsed += sizeBytes;
    return this.#arena.subarray(start, this.#arenaUsed);
  }

  /** Returns when every step added so far was run. */
  async flush(): Promise<void> {
    await this.#next();
    await this.#settle();
  }

  #start(): void {
    const ops = this.#ops;
    if (ops.length === 0) return;
    this.#ops = [];
    this.#bytes = 0;
    // The batch that used the spare arena has ended: callers settle before they start.
    [this.#arena, this.#spareArena] = [this.#spareArena, this.#arena];
    this.#arenaUsed = 0;
    // The failure is kept for whoever waits next, so that the promise itself never rejects.
    this.#running = this.#run(ops).catch((error: unknown) => { this.#failure ??= { error }; });
  }

  async #settle(): Promise<void> {
    await this.#running;
    this.#running = null;
    if (this.#failure !== null) throw this.#failure.error;
  }

  async #run(ops: readonly BatchOp[]): Promise<void> {
    for (let start = 0; start < ops.length;) {
      const rest = ops.slice(start);
      try {
        const results = await this.fs.batch(rest);
        for (let at = 0; at < results.length; at++) {
          const op = rest[at];
          const result = results[at];
          if (op === undefined || result === undefined) continue;
          if (result.attributeErrors.length > 0) await this.#noteSkipped(op, result);
          this.onResult(op, result);
        }
        return;
      } catch (error) {
        const index = (error as { index?: number }).index;
        const failed = index === undefined ? undefined : rest[index];
        if (index === undefined || failed === undefined || !(await this.onFailure(failed, error))) throw error;
        for (const op of rest.slice(0, index)) this.onResult(op, { kept: false, attributeErrors: [] });
        start += index + 1;
      }
    }
  }

  async #noteSkipped(op: BatchOp, { attributeErrors }: BatchResult): Promise<void> {
    for (const { what, code } of attributeErrors) {
      if (!unsupported.has(code) && !(await this.#isXattrTooLarge(what, code))) throw attributeError(op, what, code);
      this.skipped.add(what);
    }
  }

  /** ext4 answers ENOSPC for attributes that do not fit an inode's block, on a disk with any amount of space. */
  async #isXattrTooLarge(what: string, code: string): Promise<boolean> {
    return what.startsWith('xattr:') && (code === 'ENOSPC' || code === 'EDQUOT') && (await this.fs.space()).freeBytes > 1024 * 1024;
  }
}

function attributeError(op: BatchOp, what: string, code: string): NodeJS.ErrnoException {
  const path = op.path.toString();
  return Object.assign(new Error(`${code}: setting ${what} of '${path}'`), { code, path, attributes: attributesOfOp(op) });
}

/** Whether a link failed for a reason that a copy does not have. */
export function linkMayBeCopied(error: unknown): boolean {
  return isSystemError(error, 'EMLINK', 'EXDEV', 'EPERM', 'EACCES', 'EOPNOTSUPP', 'ENOTSUP');
}

/** An INTERNAL error: the caller broke the order that a sink prescribes. */
export function outOfOrder(what: string): WhittleError {
  return new WhittleError('INTERNAL', `layer writer: ${what}`);
}
