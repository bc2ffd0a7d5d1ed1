import { closeSync, constants, openSync, readSync } from 'node:fs';
import { systemErrorCode } from '../../../src/core/errors.js';

/** What one read of /dev/kmsg gives at most: one message. */
const longestMessageBytes = 8192;

/** Undefined where there is none, as in some containers. */
function openLog(): number | undefined {
  try {
    return openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
}

/** What the kernel says, from when this was opened; nothing where it is not heard. The caller closes it. */
export class KernelLog {
  readonly #fd = openLog();
  readonly #message = Buffer.alloc(longestMessageBytes);

  constructor() {
    this.news();
  }

  /** Whether the kernel is heard here. */
  get isHeard(): boolean {
    return this.#fd !== undefined;
  }

  /** The messages since the last call, oldest first. */
  news(): string[] {
    const messages: string[] = [];
    if (this.#fd === undefined) return messages;
    for (;;) {
      try {
        const size = readSync(this.#fd, this.#message, 0, longestMessageBytes, null);
        // "priority,number,time,flags;text", then a line for each property.
        const [line = ''] = this.#message.toString('latin1', 0, size).split('\n');
        messages.push(line.slice(line.indexOf(';') + 1));
      } catch (error) {
        const code = systemErrorCode(error);
        if (code === 'EAGAIN') return messages;
        // Messages were overwritten before they were read; the next is there.
        if (code !== 'EPIPE') throw error;
      }
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}
