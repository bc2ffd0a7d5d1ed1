import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemErrorCode, WhittleError } from '../core/errors.js';
import { isJsonObject, parseJsonObject, type JsonObject } from '../oci/json.js';
import { defaultRegistry } from '../oci/reference.js';

/** How to log in at one registry. */
export type Credential =
  | { readonly kind: 'basic'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string };

/** Finds the login for a registry (`host[:port]` as references name it), or for one of its repositories; undefined means anonymous. */
export type CredentialProvider = (registry: string, repository?: string) => Promise<Credential | undefined>;

const maxConfigBytes = 4 * 1024 * 1024;
const maxHelperOutputBytes = 256 * 1024;
const helperTimeoutMs = 30_000;

/** Docker Hub's key in Docker's own config file. */
const dockerHubKey = 'https://index.docker.io/v1/';

function unreadable(message: string, cause?: unknown): WhittleError {
  return new WhittleError('REGISTRY_CREDENTIALS', message, { cause });
}

/** Reads `user:password` as `--creds` takes it. Throws USAGE; the message does not repeat it. */
export function parseCreds(text: string): Credential {
  const colon = text.indexOf(':');
  if (colon < 1) throw new WhittleError('USAGE', 'credentials are written USER:PASSWORD');
  return { kind: 'basic', username: text.slice(0, colon), password: text.slice(colon + 1) };
}

function keysOf(registry: string): readonly string[] {
  return registry === defaultRegistry
    ? [dockerHubKey, 'index.docker.io', 'docker.io', 'registry-1.docker.io']
    : [registry, `https://${registry}`, `https://${registry}/`, `https://${registry}/v1/`, `https://${registry}/v2/`, `http://${registry}`, `http://${registry}/v1/`];
}

function lookUp(map: unknown, registry: string): unknown {
  if (!isJsonObject(map)) return undefined;
  const key = keysOf(registry).find((candidate) => Object.hasOwn(map, candidate));
  return key === undefined ? undefined : map[key];
}

/** The entry of the longest part of a repository's name that has one: `h/a/b/c` before `h/a/b` before `h/a`. */
function lookUpBelow(map: unknown, registry: string, repository: string): unknown {
  if (!isJsonObject(map)) return undefined;
  const parts = repository.split('/');
  for (let count = parts.length; count > 0; count--) {
    const key = [registry, ...parts.slice(0, count)].join('/');
    if (Object.hasOwn(map, key)) return map[key];
  }
  return undefined;
}

function fromAuthEntry(entry: unknown, file: string, registry: string): Credential | undefined {
  if (!isJsonObject(entry)) return undefined;
  const identity = entry['identitytoken'];
  if (typeof identity === 'string' && identity !== '') return { kind: 'identity-token', token: identity };
  const { username, password, auth } = entry as { username?: unknown; password?: unknown; auth?: unknown };
  if (typeof auth === 'string' && auth !== '') {
    const decoded = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/, '');
    if (decoded.indexOf(':') < 1) throw unreadable(`${file}: the login for ${registry} is not base64 of user:password`);
    return parseCreds(decoded);
  }
  return typeof username === 'string' && typeof password === 'string' && username !== '' ? { kind: 'basic', username, password } : undefined;
}

/** What a helper says: its standard output, and whether it ended well. */
async function runHelper(name: string, registry: string, env: NodeJS.ProcessEnv): Promise<{ ok: boolean; output: string }> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) throw unreadable(`credential helper ${JSON.stringify(name.slice(0, 80))} is not a program name`);
  const program = `docker-credential-${name}`;
  // Most devices have no helper, and no other use for this module of Node's.
  const { execFile } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    const child = execFile(program, ['get'], { timeout: helperTimeoutMs, maxBuffer: maxHelperOutputBytes, encoding: 'utf8', env }, (error, stdout) => {
      const code = systemErrorCode(error);
      if (code === 'ENOENT' || code === 'EACCES') reject(unreadable(`credential helper ${program} cannot be run (${code})`, error));
      else resolve({ ok: error === null, output: stdout });
    });
    // A helper that ends without reading its input is its own affair: what it printed counts.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(registry === defaultRegistry ? dockerHubKey : registry);
  });
}

async function askHelper(name: string, registry: string, env: NodeJS.ProcessEnv): Promise<Credential | undefined> {
  const { ok, output } = await runHelper(name, registry, env);
  if (!ok) {
    // The protocol's only way to say "no such login": these words on standard output.
    if (/credentials not found|no credentials server URL/i.test(output)) return undefined;
    throw unreadable(`credential helper docker-credential-${name} failed for ${registry}`);
  }
  const answer = parseHelperAnswer(output, name);
  const { Username: username, Secret: secret } = answer as { Username?: unknown; Secret?: unknown };
  if (typeof username !== 'string' || typeof secret !== 'string') throw unreadable(`credential helper docker-credential-${name} gave no login`);
  if (username === '' && secret === '') return undefined;
  return username === '<token>' ? { kind: 'identity-token', token: secret } : { kind: 'basic', username, password: secret };
}

function parseHelperAnswer(output: string, name: string): JsonObject {
  try {
    return parseJsonObject(Buffer.from(output), `docker-credential-${name}`, maxHelperOutputBytes);
  } catch {
    // Neither the text nor the parser's complaint is kept: both may hold the secret.
    throw unreadable(`credential helper docker-credential-${name} gave something that is not JSON`);
  }
}

async function readConfig(file: string): Promise<JsonObject | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw unreadable(`${file} cannot be read (${code ?? 'unknown error'})`, error);
  }
  if (bytes.length === 0) return undefined;
  try {
    return parseJsonObject(bytes, file, maxConfigBytes);
  } catch {
    throw unreadable(`${file} is not a JSON object`);
  }
}

async function fromConfig(file: string, registry: string, repository: string, env: NodeJS.ProcessEnv): Promise<Credential | undefined> {
  const config = await readConfig(file);
  if (config === undefined) return undefined;
  const helper = lookUp(config['credHelpers'], registry);
  if (typeof helper === 'string' && helper !== '') return askHelper(helper, registry, env);
  // As containers-auth.json(5) has it; helpers know registries only.
  const below = fromAuthEntry(lookUpBelow(config['auths'], registry, repository), file, registry);
  if (below !== undefined) return below;
  const store = config['credsStore'];
  const stored = typeof store === 'string' && store !== '' ? await askHelper(store, registry, env) : undefined;
  return stored ?? fromAuthEntry(lookUp(config['auths'], registry), file, registry);
}

/** The home directory; undefined for a user whom nobody knows, as in a container. */
function homeOf(env: NodeJS.ProcessEnv): string | undefined {
  const named = env['HOME'];
  if (named !== undefined && named !== '') return named;
  try {
    return homedir();
  } catch {
    return undefined;
  }
}

/**
 * The files that hold logins, in their order: the one that `$REGISTRY_AUTH_FILE` or `$DOCKER_CONFIG` names, and no other; else Docker's own,
 * then those of Podman and skopeo.
 */
export function credentialFiles(env: NodeJS.ProcessEnv, userId = process.getuid?.() ?? 0): readonly string[] {
  const named = (name: string): string | undefined => (env[name] === '' ? undefined : env[name]);
  const own = named('REGISTRY_AUTH_FILE');
  if (own !== undefined) return [own];
  const folder = named('DOCKER_CONFIG');
  if (folder !== undefined) return [join(folder, 'config.json')];
  const home = homeOf(env);
  const session = named('XDG_RUNTIME_DIR');
  const settings = named('XDG_CONFIG_HOME') ?? (home === undefined ? undefined : join(home, '.config'));
  return [
    ...(home === undefined ? [] : [join(home, '.docker', 'config.json')]),
    session === undefined ? `/run/containers/${String(userId)}/auth.json` : join(session, 'containers', 'auth.json'),
    ...(settings === undefined ? [] : [join(settings, 'containers', 'auth.json')]),
  ];
}

/**
 * Logins as Docker and Podman keep them: `auths`, `credHelpers` and `credsStore` of `credentialFiles`, the first that has one for the repository, a part of its name or the registry, read anew at each call so
 * that a fresh `docker login` counts. Helpers are found on the PATH of `env`. The provider throws REGISTRY_CREDENTIALS when they are there but unusable.
 */
export function storedCredentials(env: NodeJS.ProcessEnv = process.env): CredentialProvider {
  return async (registry, repository = '') => {
    for (const file of credentialFiles(env)) {
      const found = await fromConfig(file, registry, repository, env);
      if (found !== undefined) return found;
    }
    return undefined;
  };
}

/** One login for every registry it is asked for: give it only to the client of the registry it is meant for. */
export function fixedCredentials(credential: Credential): CredentialProvider {
  return () => Promise.resolve(credential);
}
