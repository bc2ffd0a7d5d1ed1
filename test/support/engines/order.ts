import { ContainerdApi } from '../../../src/applier/engines/containerd/api.js';
import { PodmanCommand } from '../../../src/applier/engines/podman/command.js';
import { LinuxFs } from '../../../src/atomic/index.js';

/**
 * What pulls of this process do, in order, where the order decides what a power cut can leave in an engine: `sync NAME` for a
 * `syncfs` that has ended, by the barrier's name; `snapshot` for one that is about to be committed by containerd; `podman WORD` for a
 * run of podman that is about to start.
 */
export class OrderWatch {
  readonly #steps: string[] = [];
  readonly #restore: (() => void)[] = [];

  constructor() {
    const steps = this.#steps;
    this.#replace(LinuxFs.prototype, 'syncfs', (before) => async function syncfs(this: LinuxFs, ...barrier: unknown[]): Promise<void> {
      await before.call(this);
      steps.push(`sync ${String(barrier[0])}`);
    });
    this.#replace(ContainerdApi.prototype, 'commitSnapshot', (before) => function commitSnapshot(this: ContainerdApi, ...what): Promise<void> {
      steps.push('snapshot');
      return before.apply(this, what);
    });
    this.#replace(PodmanCommand.prototype, 'start', (before) => function start(this: PodmanCommand, ...what) {
      steps.push(`podman ${what[0][0] ?? ''}`);
      return before.apply(this, what);
    });
  }

  #replace<T extends object, K extends keyof T>(on: T, name: K, make: (before: T[K]) => T[K]): void {
    const before = on[name];
    on[name] = make(before);
    this.#restore.push(() => { on[name] = before; });
  }

  /** What was done since the last call, one after the other, joined by commas. */
  take(): string {
    return this.#steps.splice(0).join(', ');
  }

  /** Idempotent. */
  stop(): void {
    for (const restore of this.#restore.splice(0)) restore();
  }
}
