import type { Dispatcher } from 'undici';
import { WhittleError } from '../core/errors.js';

/**
 * Counts the bodies of all answers as they arrive, also of those that nobody reads (tokens, errors, what came before a connection
 * broke), and ends with BUDGET_EXCEEDED an answer that would make them more than `maxBytes`: unread where it says its length.
 */
export class ReceiveGate {
  #receivedBytes = 0;

  constructor(private readonly maxBytes: number) {}

  /** Bytes that came in, of all answers together. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** For an HTTP client's `compose`. */
  readonly interceptor: Dispatcher.DispatcherComposeInterceptor = (dispatch) => (options, handler) => dispatch(options, {
    onRequestStart: (...started) => handler.onRequestStart?.(...started),
    onResponseStart: (controller, status, headers, message) => {
      const declared = options.method === 'HEAD' ? 0 : Number(headers['content-length'] ?? 0);
      if (this.#allows(controller, Number.isSafeInteger(declared) ? declared : 0)) handler.onResponseStart?.(controller, status, headers, message);
    },
    onResponseData: (controller, chunk) => {
      this.#receivedBytes += chunk.length;
      if (this.#allows(controller, 0)) handler.onResponseData?.(controller, chunk);
    },
    onResponseEnd: (...ended) => handler.onResponseEnd?.(...ended),
    onResponseError: (...failed) => handler.onResponseError?.(...failed),
  });

  /** Whether so many bytes more may come; if not, the answer is ended. */
  #allows(controller: Dispatcher.DispatchController, bytes: number): boolean {
    if (this.#receivedBytes + bytes <= this.maxBytes) return true;
    controller.abort(new WhittleError('BUDGET_EXCEEDED', `the pull needs more than the ${String(this.maxBytes)} bytes that --max-bytes allows`, { data: { maxBytes: this.maxBytes } }));
    return false;
  }
}
