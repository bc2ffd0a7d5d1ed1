import type { ServerResponse } from 'node:http';
import { WhittleError } from '../../../core/errors.js';
import { interruption } from '../../../core/interruption.js';
import { podmanFailed, type PodmanOutcome, type PodmanRun } from './command.js';

/** One run of `podman pull` that is fed with a layer while the layer is rebuilt. */
export class LayerPull {
  #response: ServerResponse | 'notWanted' | null = null;
  readonly #abort: () => void;

  /** `asked` settles when podman asks for the layer. */
  constructor(private readonly run: PodmanRun, private readonly asked: Promise<ServerResponse>, private readonly signal: AbortSignal | undefined) {
    this.#abort = (): void => { run.stop().catch(() => undefined); };
    signal?.addEventListener('abort', this.#abort, { once: true });
    if (signal?.aborted === true) this.#abort();
  }

  /** The next bytes; they may be reused when it resolves. Throws ENGINE_FAILED, STORAGE_FULL with podman's words, INTERRUPTED. */
  async write(chunk: Buffer): Promise<void> {
    this.#response ??= await this.#whenAsked();
    const response = this.#response;
    if (response === 'notWanted') return;
    const sent = await new Promise<boolean>((settle) => {
      const closed = (): void => { settle(false); };
      response.once('close', closed);
      if (response.destroyed) closed();
      // Its end, not that of the buffering, is when the bytes may be reused.
      response.write(chunk, (error) => {
        response.off('close', closed);
        settle(error === null || error === undefined);
      });
    });
    if (!sent) throw await this.#broken();
  }

  /** The bytes are whole. Resolves when podman has the image. Throws as `write` does. */
  async end(): Promise<void> {
    try {
      this.#response ??= await this.#whenAsked();
      if (this.#response !== 'notWanted') this.#response.end();
      const outcome = await this.run.outcome;
      if (outcome.exitCode !== 0) throw this.#failed(outcome);
    } finally {
      this.#forget();
    }
  }

  /** Gives up: podman sees a broken download and ends. Idempotent. */
  async abort(): Promise<void> {
    this.#forget();
    if (this.#response !== null && this.#response !== 'notWanted') this.#response.destroy();
    await this.run.stop();
  }

  /** The response to write into. Podman asks for no layer that it found after all. */
  async #whenAsked(): Promise<ServerResponse | 'notWanted'> {
    const first = await Promise.race([this.asked, this.run.outcome]);
    if (!('exitCode' in first)) return first;
    if (first.exitCode !== 0) throw this.#failed(first);
    return 'notWanted';
  }

  async #broken(): Promise<WhittleError> {
    const outcome = await this.run.outcome;
    return outcome.exitCode === 0 ? new WhittleError('ENGINE_FAILED', 'podman ended before the layer did') : this.#failed(outcome);
  }

  #failed(outcome: PodmanOutcome): WhittleError {
    if (this.signal?.aborted === true) return interruption(this.signal);
    return podmanFailed('pull', outcome);
  }

  #forget(): void {
    this.signal?.removeEventListener('abort', this.#abort);
  }
}
