import { resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { parseEngineName } from '../applier/engines/open.js';
import type { Engine, EngineName, EngineSettings, ImagePlace } from '../applier/engines/types.js';
import { enginePlace, storePlace } from '../applier/pull/place.js';
import type { Store } from '../applier/store/types.js';
import { checkSetting, defaultConfigPath, readDeviceConfig } from './device-config.js';
import type { CommandContext, Flag } from './device-command.js';

/** Flags that say how an engine is reached. */
export const engineFlags: readonly Flag[] = [
  { name: 'engine-address', value: 'PATH', help: 'the engine\'s unix socket (default: /var/run/docker.sock, /run/containerd/containerd.sock) or program (podman)' },
  { name: 'engine-root', value: 'DIR', help: 'where the engine keeps its images (default: what it says itself)' },
  { name: 'engine-namespace', value: 'NAME', help: 'containerd\'s namespace (default: default; k8s.io for Kubernetes)' },
  { name: 'config', value: 'FILE', help: `settings of this device (default: ${defaultConfigPath}, if it is there)` },
];

const flagOf: Readonly<Partial<Record<keyof EngineSettings, string>>> = { address: 'engine-address', root: 'engine-root', namespace: 'engine-namespace' };

/** An engine that was chosen, and how to reach it. */
interface Choice {
  readonly name: EngineName;
  readonly settings: EngineSettings;
}

/** The engine that the flag `into` or the settings name; null for the device's own store. Throws USAGE. */
async function chooseEngine(context: CommandContext, into: string | undefined): Promise<Choice | null> {
  const path = context.get('config');
  const config = await readDeviceConfig(path === undefined ? defaultConfigPath : resolve(path), path !== undefined);
  const chosen = into ?? config.into;
  if (chosen === 'store') return null;
  const name = parseEngineName(chosen, into === undefined ? 'the settings' : '--into');
  const settings: Partial<Record<keyof EngineSettings, string | undefined>> = { ...config.engines[name] };
  for (const [key, flag] of Object.entries(flagOf) as [keyof EngineSettings, string][]) {
    const text = context.get(flag);
    if (text !== undefined) settings[key] = checkSetting(key, key === 'namespace' ? text : resolve(text), `--${flag}`);
  }
  return { name, settings };
}

async function connect(context: CommandContext, store: Store, { name, settings }: Choice): Promise<Engine> {
  const { openEngine } = await import('../applier/engines/open.js');
  return openEngine(name, { settings, fs: store.fs, signal: context.signal, onNote: (note) => { context.output.note(note); } });
}

/** Runs `work` on the place that `--into` or the settings choose: an engine, or the device's own store. The engine is closed after it. */
export async function withPlace<T>(context: CommandContext, store: Store, work: (place: ImagePlace) => Promise<T>): Promise<T> {
  const choice = await chooseEngine(context, context.get('into'));
  if (choice === null) return work(storePlace(store));
  const engine = await connect(context, store, choice);
  try {
    return await work(enginePlace(store, engine));
  } finally {
    await engine.close();
  }
}

/** Runs `work` with the engine that `--in` names, if it names one. Throws USAGE. */
export async function withNamedEngine<T>(context: CommandContext, store: Store, name: string, work: (engine: Engine) => Promise<T>): Promise<T> {
  const choice = await chooseEngine(context, parseEngineName(name, '--in'));
  if (choice === null) throw new WhittleError('USAGE', '--in store is what is shown without --in');
  const engine = await connect(context, store, choice);
  try {
    return await work(engine);
  } finally {
    await engine.close();
  }
}
