import { formatBytes, formatDuration, formatExact, formatRatio, parseBytes, shortDigest } from '../core/format.js';
import type { PullEvent } from '../applier/pull/events.js';
import { pullDefaults, type PullOptions } from '../applier/pull/options.js';
import { pullInto, type PullResult } from '../applier/pull/pull.js';
import { hostPlatform, parsePlatform, parseReference } from '../oci/index.js';
import { engineFlags, withPlace } from './device-engine.js';
import { parseTime, usage, type Command, type CommandContext } from './device-command.js';
import { withStore } from './device-open.js';
import { openImageSource, sourceFlags } from './device-source.js';
import { formatTable, type Output } from './output.js';
import { createProgress, type Progress } from './progress.js';

/** `device pull`. */
export const pullCommand: Command = {
  name: 'pull',
  parameters: ['IMAGE'],
  summary: 'fetch an image, by a delta where there is one, and commit it',
  description: [
    'Fetches an image and commits it as one step: whenever the link or the power goes, the old image stays whole and the',
    'next pull continues. With images in the store it asks for a delta from the best of them and says beforehand what the',
    'download is and what the layers would have been; without a usable delta it fetches the missing layers.',
    '',
    'With --into, or "into" in the settings file, the image lands in a container engine instead, under its name and with the same',
    'image ID, rebuilt from what that engine holds; nothing of it stays in the store here.',
    '',
    'IMAGE is written as for docker: [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]. Plain http is spoken on loopback only, or with --plain-http.',
  ].join('\n'),
  flags: [
    { name: 'delta', help: 'insist on asking for a delta, and warn when the layers have to be fetched' },
    { name: 'no-delta', help: 'fetch the missing layers' },
    ...sourceFlags,
    { name: 'into', value: 'ENGINE', help: 'docker, containerd or podman: give the image to that engine, from what it holds (default: store, the device\'s own)' },
    ...engineFlags,
    { name: 'platform', value: 'OS/ARCH[/VARIANT]', help: 'which image of a multi-platform one (default: this machine\'s)' },
    { name: 'limit-rate', value: 'SIZE', help: 'bytes a second at most, such as 200kB' },
    { name: 'max-bytes', value: 'SIZE', help: 'refuse to receive more than this' },
    { name: 'dry-run', help: 'say what would be fetched, and fetch no layer or delta' },
    { name: 'wait', value: 'TIME', help: 'how long to wait while a server makes the delta (default: 10m)' },
    { name: 'wait-lock', value: 'TIME', help: 'how long to wait for another pull of the same image (default: 2m)' },
  ],
  examples: [
    'device pull registry.example/app:2.0',
    'device pull --delta 127.0.0.1:8080/app:2.0 --root /tmp/store',
    'device pull registry.example/app:2.0 --from https://deltas.example --limit-rate 100kB',
    'device pull registry.example/app:2.0 --from oci-archive:/media/usb/app.delta',
    'device pull registry.example/app:2.0 --dry-run --json',
    'device pull registry.example/app:2.0 --into docker && docker run registry.example/app:2.0',
    'device pull registry.example/app:2.0 --into docker --engine-address /run/user/1000/docker.sock --dry-run',
  ],
  run: runPull,
};

async function runPull(context: CommandContext): Promise<undefined> {
  const { output, signal } = context;
  const image = context.positionals[0] ?? '';
  if (context.has('delta') && context.has('no-delta')) throw usage(pullCommand, '--delta and --no-delta exclude each other');
  const reference = parseReference(image);
  const platform = context.get('platform');
  const limitRate = sizeFlag(context, 'limit-rate');
  if (limitRate === 0) throw usage(pullCommand, '--limit-rate must not be 0');
  const show = output.options.json === true ? jsonListener(output) : new HumanListener(output, context.has('delta'), context.has('dry-run'));
  const options: PullOptions = {
    ...pullDefaults, image, reference, signal, limitRate,
    platform: platform === undefined ? hostPlatform() : parsePlatform(platform), platformChosen: platform !== undefined,
    delta: context.has('no-delta') ? 'never' : context.has('delta') ? 'prefer' : 'auto',
    deltaWaitMs: timeFlag(context, 'wait') ?? pullDefaults.deltaWaitMs,
    lockWaitMs: timeFlag(context, 'wait-lock') ?? pullDefaults.lockWaitMs,
    maxBytes: sizeFlag(context, 'max-bytes'), dryRun: context.has('dry-run'),
    onEvent: (event) => { show.on(event); },
  };
  const source = await openImageSource(context, reference, options.maxBytes);
  try {
    await withStore(context, { create: true }, (store) => withPlace(context, store, async (place) => {
      show.end(await pullInto(place, source, options), place.passing === null ? ` in ${place.name}` : '');
    }));
  } finally {
    show.stop();
    await source.close();
  }
}

function sizeFlag(context: CommandContext, name: string): number | null {
  const text = context.get(name);
  return text === undefined ? null : parseBytes(text, `--${name}`);
}

function timeFlag(context: CommandContext, name: string): number | null {
  const text = context.get(name);
  return text === undefined ? null : parseTime(text, `--${name}`);
}

/** Shows a pull. */
interface PullView {
  on(event: PullEvent): void;
  /** `where` follows the name of the image, for an engine: " in docker". */
  end(result: PullResult, where: string): void;
  /** Leaves the terminal clean, also after an error. */
  stop(): void;
}

/** Least time between two progress lines of --json. */
const jsonProgressMs = 250;

function jsonListener(output: Output): PullView {
  let lastMs = -Infinity;
  return {
    on: (event) => {
      if (event.event === 'progress' && event.doneBytes < event.totalBytes) {
        if (performance.now() - lastMs < jsonProgressMs) return;
        lastMs = performance.now();
      }
      output.json(event);
    },
    end: () => undefined,
    stop: () => undefined,
  };
}

type Plan = Extract<PullEvent, { event: 'plan' }>;

/** The downloads of a plan to the byte, a line each; `receivedBytes`: and with all that asking for them costs. */
function describeSteps(steps: Plan['steps'], receivedBytes: number | null): string[] {
  const rows = steps.map((step) => [
    step.kind === 'layer' ? `layer ${shortDigest(step.digest)}` : `delta ${shortDigest(step.basisConfig)} -> ${shortDigest(step.targetConfig)}`,
    `${formatExact(step.downloadBytes)} bytes${step.heldBytes > 0 ? ` (and ${formatExact(step.heldBytes)} here already)` : ''}`,
  ]);
  if (steps.length > 1) rows.push(['in all', `${formatExact(steps.reduce((sum, step) => sum + step.downloadBytes, 0))} bytes`]);
  if (receivedBytes !== null) rows.push(['with lists and manifests', `${formatExact(receivedBytes)} bytes received`]);
  return formatTable(rows, { indent: '  ' }).split('\n');
}

const phaseLabels = { download: 'downloading', apply: 'rebuilding', verify: 'verifying' } as const;

class HumanListener implements PullView {
  readonly #progress: Progress;
  #phase: string | null = null;
  #waiting = false;

  constructor(private readonly output: Output, private readonly insist: boolean, private readonly dryRun: boolean) {
    this.#progress = createProgress({ quiet: output.options.quiet === true });
  }

  on(event: PullEvent): void {
    switch (event.event) {
      case 'resolved': this.#say(`${event.image} is image ${shortDigest(event.configDigest)}, at ${event.from}`); break;
      case 'waiting': this.#wait(event.reason); break;
      case 'plan': this.#plan(event); break;
      case 'progress': this.#show(event.phase, event.doneBytes, event.totalBytes); break;
      case 'retry': this.#say(`${event.reason}; trying again in ${formatDuration(event.pauseMs)}`); break;
      case 'fallback': this.#warn(`${event.reason} (${event.code}); falling back to the next way`); break;
      case 'note': this.#say(event.text); break;
      case 'current':
      case 'applied':
      case 'committed': break;
    }
  }

  #wait(reason: 'delta' | 'lock'): void {
    if (!this.#waiting) this.#say(reason === 'delta' ? 'the server is making the delta; waiting for it' : 'another process is pulling this image; waiting for it');
    this.#waiting = true;
  }

  #plan(plan: Plan): void {
    const held = plan.heldBytes > 0 ? ` (${formatBytes(plan.heldBytes)} of it are here already)` : '';
    const layers = `${String(plan.missingLayers)} of ${String(plan.totalLayers)} layers`;
    if (plan.way === 'nothing') this.#say('every layer is here; nothing to download');
    else if (plan.way === 'delta') {
      const whole = plan.downloadBytes + plan.heldBytes;
      const what = plan.steps.length > 1 ? `a chain of ${String(plan.steps.length)} deltas` : 'a delta';
      this.#say(`${what} from image ${shortDigest(plan.basisConfig ?? '')}: ${formatBytes(whole)} to download${held}; the layers would be ${formatBytes(plan.layerPullBytes)} (${formatRatio(plan.layerPullBytes, whole)})`);
    } else {
      if (this.insist) this.#warn(`no delta: ${plan.reason ?? ''}`);
      this.#say(`${layers} in full: ${formatBytes(plan.downloadBytes + plan.heldBytes)} to download${held}${this.insist ? '' : `; no delta, because ${plan.reason ?? ''}`}`);
    }
    if (plan.way !== 'nothing' && (this.dryRun || plan.way === 'delta' && plan.steps.length > 1)) for (const line of describeSteps(plan.steps, this.dryRun ? plan.receivedBytes : null)) this.#say(line);
  }

  #show(phase: keyof typeof phaseLabels, done: number, total: number): void {
    if (this.#phase !== phase) this.#progress.start(phaseLabels[phase], total, { done });
    this.#phase = phase;
    this.#progress.update(done, total);
  }

  #say(text: string): void {
    if (this.output.options.quiet !== true) this.#progress.log(text);
  }

  #warn(text: string): void {
    this.#progress.stop();
    this.#phase = null;
    this.output.warn(text);
  }

  end({ outcome, image, figures, way }: PullResult, where: string): void {
    this.stop();
    const id = shortDigest(image?.configDigest ?? '');
    const names = image?.names.join(', ') ?? '';
    if (outcome === 'current') this.output.print(`${names}: already up to date (image ${id}${where})`);
    if (outcome !== 'committed') return;
    const { total } = figures.downloadedBytes;
    const saved = way === 'delta' ? `, ${formatRatio(figures.layerPullBytes, total)} than the layers` : '';
    this.output.print(`${names}: image ${id}${where}, ${formatBytes(total)} received${saved}, in ${formatDuration(figures.wallMs)}`);
  }

  stop(): void {
    this.#progress.stop();
    this.#phase = null;
  }
}
