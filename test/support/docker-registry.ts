import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './free-port.js';
import { until } from './until.js';

/** A Debian docker-registry of the test's own, on loopback, with its data in a temporary folder. */
export interface DockerRegistry {
  /** `127.0.0.1:port`. */
  readonly host: string;
  /** Where it keeps its data. */
  readonly dir: string;
  /** Ends the process and removes the data. */
  close(): Promise<void>;
}

/** The one user of a registry that was started with `login: true`. */
export const registryLogin = { username: 'tester', password: 'secret' } as const;

/** bcrypt of that password: the only kind that the registry accepts. */
const htpasswdLine = 'tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';

async function untilAnswers(host: string, child: ChildProcess, log: () => string): Promise<void> {
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`docker-registry ended at once: ${log()}`);
    return fetch(`http://${host}/v2/`).then((response) => response.status === 200 || response.status === 401, () => false);
  }, () => `docker-registry does not answer: ${log()}`);
}

/** Starts a registry and waits until it answers. The caller closes it. Needs Debian's docker-registry. */
export async function startDockerRegistry(options: { readonly login?: boolean; readonly deletes?: boolean } = {}): Promise<DockerRegistry> {
  const dir = await mkdtemp(join(tmpdir(), 'docker-registry-'));
  const host = `127.0.0.1:${String(await freePort())}`;
  await writeFile(join(dir, 'htpasswd'), htpasswdLine);
  await writeFile(join(dir, 'config.yml'), JSON.stringify({
    version: 0.1, log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(dir, 'data') }, delete: { enabled: options.deletes ?? true } },
    http: { addr: host },
    ...(options.login === true ? { auth: { htpasswd: { realm: 'test', path: join(dir, 'htpasswd') } } } : {}),
  }));
  const child = spawn('docker-registry', ['serve', join(dir, 'config.yml')], { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  const keep = (chunk: Buffer): void => { log = (log + chunk.toString()).slice(-2000); };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const ended = new Promise<void>((resolve) => { child.once('close', () => { resolve(); }); });
  const close = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await untilAnswers(host, child, () => log);
  } catch (error) {
    await close();
    throw error;
  }
  return { host, dir, close };
}
