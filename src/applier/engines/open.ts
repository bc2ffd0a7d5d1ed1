import { WhittleError } from '../../core/errors.js';
import { engineNames, type Engine, type EngineContext, type EngineName, type OpenEngine } from './types.js';

/** The module of each engine, loaded only when it is asked for: a device's memory is small, and it has one engine at most. */
const openers: Readonly<Partial<Record<EngineName, () => Promise<OpenEngine>>>> = {
  containerd: async () => (await import('./containerd/engine.js')).openContainerd,
  docker: async () => (await import('./docker/engine.js')).openDocker,
  podman: async () => (await import('./podman/engine.js')).openPodman,
};

/** Connects to an engine. The caller closes it. Throws ENGINE_UNREACHABLE, ENGINE_DENIED, ENGINE_UNSUPPORTED, ENGINE_FAILED. */
export async function openEngine(name: EngineName, context: EngineContext): Promise<Engine> {
  const load = openers[name];
  if (load === undefined) throw new WhittleError('USAGE', `no such engine: ${name}`);
  return (await load())(context);
}

/** Reads the name of an engine as a person wrote it. Throws USAGE. */
export function parseEngineName(text: string, what: string): EngineName {
  const name = engineNames.find((each) => each === text);
  if (name === undefined) throw new WhittleError('USAGE', `${what}: no such engine: ${JSON.stringify(text.slice(0, 40))}`, { hint: `The engines are: ${engineNames.join(', ')}` });
  return name;
}
