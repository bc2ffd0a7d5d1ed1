import { readFile, stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';
import { parseEngineName } from '../applier/engines/open.js';
import { engineNames, type EngineName, type EngineSettings } from '../applier/engines/types.js';
import { isJsonObject, parseJsonObject } from '../oci/index.js';

/** Where the device's settings are when no flag says otherwise. Having none is fine. */
export const defaultConfigPath = '/etc/whittle/device.json';

/** Largest settings file, in bytes. */
const maxConfigBytes = 64 * 1024;

/** Settings of the device program; flags go before them. */
export interface DeviceConfig {
  /** Where `device pull` puts images: an engine, or the device's own store. */
  readonly into: EngineName | 'store';
  readonly engines: Readonly<Partial<Record<EngineName, EngineSettings>>>;
}

const noConfig: DeviceConfig = { into: 'store', engines: {} };

/** What each setting of an engine may be. */
const settings: Readonly<Record<keyof EngineSettings, 'path' | 'word'>> = { address: 'path', root: 'path', runRoot: 'path', namespace: 'word', snapshotter: 'word' };

/**
 * Reads the settings at `path`; `required` when the user named the file. Whoever may write them decides what root talks to, so
 * they must be nobody's but root's then. Throws USAGE for anything that is not as documented, naming the field.
 */
export async function readDeviceConfig(path: string, required: boolean): Promise<DeviceConfig> {
  const bytes = await readOwn(path, required);
  return bytes === undefined ? noConfig : parseDeviceConfig(bytes, path);
}

async function readOwn(path: string, required: boolean): Promise<Buffer | undefined> {
  try {
    const { uid, mode, size } = await stat(path);
    const me = process.geteuid?.() ?? 0;
    if ((uid !== 0 && uid !== me) || (mode & 0o022) !== 0) throw bad(path, 'it can be changed by others', `Run: chown root ${path} && chmod 644 ${path}`);
    if (size > maxConfigBytes) throw bad(path, `it has ${String(size)} bytes; at most ${String(maxConfigBytes)} are read`);
    return await readFile(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' && !required) return undefined;
    if (isWhittleError(error)) throw error;
    throw new WhittleError('USAGE', `the settings ${path} cannot be read: ${systemErrorCode(error) ?? String(error)}`, { cause: error });
  }
}

/** Reads settings from their JSON. Throws USAGE. */
export function parseDeviceConfig(bytes: Buffer, path: string): DeviceConfig {
  let value;
  try {
    value = parseJsonObject(bytes, path, maxConfigBytes);
  } catch (cause) {
    throw bad(path, cause instanceof Error ? cause.message : 'not JSON');
  }
  const { into = 'store', engines = {}, ...unknown } = value;
  refuseUnknown(path, unknown, '');
  if (typeof into !== 'string') throw bad(path, '"into" is not a text');
  if (!isJsonObject(engines)) throw bad(path, '"engines" is not an object');
  const parsed: Partial<Record<EngineName, EngineSettings>> = {};
  for (const [name, each] of Object.entries(engines)) {
    const engine = engineNames.find((known) => known === name);
    if (engine === undefined) throw bad(path, `"engines" names ${JSON.stringify(name.slice(0, 40))}`, `The engines are: ${engineNames.join(', ')}`);
    parsed[engine] = parseSettings(path, name, each);
  }
  return { into: into === 'store' ? 'store' : parseEngineName(into, `${path}: into`), engines: parsed };
}

function parseSettings(path: string, engine: string, value: unknown): EngineSettings {
  if (!isJsonObject(value)) throw bad(path, `"engines.${engine}" is not an object`);
  const parsed: Partial<Record<keyof EngineSettings, string>> = {};
  for (const name of Object.keys(settings) as (keyof EngineSettings)[]) {
    const text = value[name];
    if (text !== undefined) parsed[name] = checkSetting(name, text, `${path}: engines.${engine}.${name}`);
  }
  refuseUnknown(path, Object.fromEntries(Object.entries(value).filter(([name]) => !Object.hasOwn(settings, name))), `engines.${engine}.`);
  return parsed;
}

/** Checks one setting of an engine, from the file or a flag. Throws USAGE. */
export function checkSetting(name: keyof EngineSettings, value: unknown, what: string): string {
  const fits = typeof value === 'string' && value.length <= 4096 && !value.includes('\0') && (settings[name] === 'path' ? isAbsolute(value) : /^[A-Za-z0-9][A-Za-z0-9._-]{0,75}$/.test(value));
  if (!fits) throw new WhittleError('USAGE', `${what}: not ${settings[name] === 'path' ? 'an absolute path' : 'a name'}: ${JSON.stringify(value).slice(0, 100)}`);
  return value;
}

function refuseUnknown(path: string, rest: Readonly<Record<string, unknown>>, prefix: string): void {
  const [first] = Object.keys(rest);
  if (first !== undefined) throw bad(path, `it has ${JSON.stringify(`${prefix}${first}`.slice(0, 100))}, which is no setting`, 'See docs/engines.md for the settings.');
}

function bad(path: string, problem: string, hint?: string): WhittleError {
  return new WhittleError('USAGE', `the settings ${path}: ${problem}`, hint === undefined ? {} : { hint });
}
