import { request, type ClientRequest, type IncomingMessage } from 'node:http';
import { isWhittleError, systemErrorCode, WhittleError } from '../../../core/errors.js';
import { interruption } from '../../../core/interruption.js';
import { isJsonObject, parseJsonObject, type JsonObject } from '../../../oci/index.js';
import type { BytePipe } from '../docker-archive.js';

/** Where Docker listens when nobody says otherwise. */
export const defaultDockerSocket = '/var/run/docker.sock';

const limits = {
  /** Largest answer, in bytes: a list of some thousand images. */
  answerBytes: 16 * 1024 * 1024,
  /** Longest line of the progress of a load, in characters. */
  lineChars: 64 * 1024,
  /** How long Docker may say nothing while it is asked something. */
  answerMs: 60_000,
  /** How long it may take no byte, or say nothing while it unpacks what it took: flash is slow, and layers are large. */
  loadMs: 15 * 60_000,
} as const;

/** The Docker Engine API, over its unix socket, a connection for each request: one that was kept may be that of a daemon that is no more. Every answer is bounded and checked. */
export class DockerApi {
  constructor(readonly socketPath: string) {}

  /** The JSON that `path` gives; undefined for 404. Throws ENGINE_UNREACHABLE, ENGINE_DENIED, ENGINE_FAILED, LIMIT_EXCEEDED, INTERRUPTED. */
  async get(path: string, signal?: AbortSignal): Promise<unknown> {
    const answer = await this.#answer(request({ socketPath: this.socketPath, path, method: 'GET', agent: false, headers: { host: 'docker' }, timeout: limits.answerMs }), signal, true);
    const body = await readBody(answer, this.socketPath);
    if (answer.statusCode === 404) return undefined;
    if (answer.statusCode !== 200) throw refused(`GET ${path}`, answer.statusCode, body);
    try {
      return JSON.parse(body.toString());
    } catch (cause) {
      throw new WhittleError('ENGINE_FAILED', `docker answered GET ${path} with something that is not JSON`, { cause });
    }
  }

  /** The same, where only an object will do. */
  async getObject(path: string, signal?: AbortSignal): Promise<JsonObject | undefined> {
    const value = await this.get(path, signal);
    if (value !== undefined && !isJsonObject(value)) throw new WhittleError('ENGINE_FAILED', `docker answered GET ${path} with something that is not an object`);
    return value;
  }

  /** What Docker says of an image, by name or ID; undefined when it has none. */
  inspectImage(name: string, signal?: AbortSignal): Promise<JsonObject | undefined> {
    return this.getObject(`/images/${name.split('/').map(encodeURIComponent).join('/')}/json`, signal);
  }

  /** Begins `POST /images/load`. The caller ends or aborts the pipe. */
  load(signal?: AbortSignal): BytePipe {
    const sent = request({
      socketPath: this.socketPath, path: '/images/load?quiet=0', method: 'POST', agent: false, timeout: limits.loadMs,
      headers: { host: 'docker', 'content-type': 'application/x-tar', 'transfer-encoding': 'chunked' },
    });
    return new LoadPipe(sent, this.#answer(sent, signal, false), this.socketPath);
  }

  #answer(sent: ClientRequest, signal: AbortSignal | undefined, end: boolean): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => { if (signal !== undefined) sent.destroy(interruption(signal)); };
      signal?.addEventListener('abort', onAbort);
      sent.on('close', () => { signal?.removeEventListener('abort', onAbort); });
      sent.on('timeout', () => { sent.destroy(new WhittleError('ENGINE_UNREACHABLE', `docker at ${this.socketPath} has been silent for too long`)); });
      sent.on('error', (error) => { reject(unreachable(this.socketPath, error)); });
      sent.on('response', resolve);
      if (signal?.aborted === true) onAbort();
      else if (end) sent.end();
    });
  }
}

/** An archive on its way to `docker load`. */
class LoadPipe implements BytePipe {
  readonly #loaded: Promise<void>;
  /** Rejects when Docker gave up; never resolves. */
  readonly #refusal: Promise<never>;
  #ended = false;

  constructor(private readonly sent: ClientRequest, answer: Promise<IncomingMessage>, socketPath: string) {
    this.#loaded = answer.then((response) => readProgress(response, socketPath));
    this.#refusal = new Promise((_, reject) => { this.#loaded.catch(reject); });
    // Whoever writes or ends hears of it; nobody may be doing either at that moment.
    this.#refusal.catch(() => undefined);
  }

  async write(chunk: Buffer): Promise<void> {
    const written = new Promise<void>((resolve, reject) => {
      this.sent.write(chunk, (error) => { if (error == null) resolve(); else reject(error); });
    });
    await this.#whileTaken(written);
  }

  async end(): Promise<void> {
    this.#ended = true;
    this.sent.end();
    await this.#loaded;
  }

  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.sent.destroy();
    await this.#loaded.catch(() => undefined);
  }

  /** What Docker says beats what the broken socket says, which may come first. */
  async #whileTaken(work: Promise<void>): Promise<void> {
    try {
      await Promise.race([work, this.#refusal]);
    } catch (error) {
      work.catch(() => undefined);
      await this.#loaded;
      throw error;
    }
  }
}

/** Reads the lines with which Docker tells how a load goes. Throws ENGINE_FAILED, STORAGE_FULL for an error among them. */
async function readProgress(response: IncomingMessage, socketPath: string): Promise<void> {
  if (response.statusCode !== 200) throw refused('the image', response.statusCode, await readBody(response, socketPath));
  let held = '';
  response.setEncoding('utf8');
  try {
    for await (const text of response as AsyncIterable<string>) {
      const lines = (held + text).split('\n');
      held = lines.pop() ?? '';
      for (const line of lines) checkLine(line);
      if (held.length > limits.lineChars) throw new WhittleError('ENGINE_FAILED', 'docker answered a load with an endless line');
    }
  } catch (error) {
    throw unreachable(socketPath, error);
  }
  checkLine(held);
}

function checkLine(line: string): void {
  if (line.trim() === '') return;
  let error: unknown;
  try {
    ({ error } = parseJsonObject(Buffer.from(line), 'its answer', limits.lineChars * 4));
  } catch (cause) {
    throw new WhittleError('ENGINE_FAILED', 'docker answered a load with a line that is not JSON', { cause });
  }
  if (error !== undefined) throw failed('the image', typeof error === 'string' ? error : 'for no reason that it gives');
}

async function readBody(response: IncomingMessage, socketPath: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      sizeBytes += chunk.length;
      if (sizeBytes > limits.answerBytes) throw new WhittleError('LIMIT_EXCEEDED', `docker answered with more than ${String(limits.answerBytes)} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw unreachable(socketPath, error);
  }
  return Buffer.concat(chunks);
}

function refused(what: string, status: number | undefined, body: Buffer): WhittleError {
  let message = body.subarray(0, 500).toString();
  try {
    const value: unknown = JSON.parse(body.toString());
    if (isJsonObject(value) && typeof value['message'] === 'string') message = value['message'];
  } catch {
    // Then the words as they came.
  }
  return failed(what, `${message} (HTTP ${String(status)})`);
}

function failed(what: string, words: string): WhittleError {
  const message = `docker refused ${what}: ${oneLine(words)}`;
  return /no space left on device|disk quota exceeded/i.test(words) ? new WhittleError('STORAGE_FULL', message, { hint: 'Free space where Docker keeps its images: docker image prune' }) : new WhittleError('ENGINE_FAILED', message);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().slice(0, 500);
}

function unreachable(socketPath: string, error: unknown): Error {
  if (isWhittleError(error)) return error;
  const code = systemErrorCode(error);
  if (code === 'EACCES' || code === 'EPERM') return new WhittleError('ENGINE_DENIED', `docker's socket ${socketPath} may not be used by this user (${code})`, { cause: error });
  return new WhittleError('ENGINE_UNREACHABLE', `docker does not answer at ${socketPath}: ${code ?? String(error)}`, { cause: error });
}
