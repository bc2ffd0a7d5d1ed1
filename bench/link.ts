import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

/** A link on loopback between a device and a server: it has a rate, counts what passes, and can be cut. */
export interface Link {
  readonly port: number;
  /** Bytes that reached the device since the last `reset`, HTTP headers included. */
  readonly receivedBytes: number;
  /** Sets the counter to 0, and the rate of both directions together; null is as fast as it goes. */
  reset(bytesPerSecond: number | null): void;
  /** Resolves when so many bytes have reached the device since `reset`; by then every connection is cut, and stays so until `mend`. */
  cutAfter(byteCount: number): Promise<void>;
  mend(): void;
  /** Resolves when so many bytes have reached the device since `reset`; they go on. */
  passed(byteCount: number): Promise<void>;
  close(): Promise<void>;
}

/** How often a limited link hands over bytes. */
const tickMs = 20;

/** Opens a link to a server on 127.0.0.1:`serverPort`; the caller closes it. */
export async function openLink(serverPort: number): Promise<Link> {
  const link = new ThrottledLink(serverPort);
  await link.listen();
  return link;
}

class ThrottledLink implements Link {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #receivedBytes = 0;
  #bytesPerSecond: number | null = null;
  #cut = false;
  #cutAt = Infinity;
  #onCut: (() => void) | null = null;
  #awaited: { readonly byteCount: number; readonly then: () => void }[] = [];

  constructor(private readonly serverPort: number) {
    this.#server = createServer((device) => this.#join(device));
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(0, '127.0.0.1', resolve);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  reset(bytesPerSecond: number | null): void {
    this.#receivedBytes = 0;
    this.#bytesPerSecond = bytesPerSecond;
  }

  cutAfter(byteCount: number): Promise<void> {
    this.#cutAt = byteCount;
    return new Promise((resolve) => { this.#onCut = resolve; });
  }

  mend(): void {
    this.#cut = false;
  }

  passed(byteCount: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#receivedBytes >= byteCount) resolve();
      else this.#awaited.push({ byteCount, then: resolve });
    });
  }

  close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #join(device: Socket): void {
    if (this.#cut) {
      device.resetAndDestroy();
      return;
    }
    const server = connect(this.serverPort, '127.0.0.1');
    for (const [socket, other] of [[device, server], [server, device]] as const) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => other.destroy());
      socket.on('close', () => { this.#sockets.delete(socket); other.destroy(); });
    }
    device.pipe(server);
    server.on('data', (chunk: Buffer) => {
      server.pause();
      this.#deliver(chunk, device, () => server.resume());
    });
    server.on('end', () => device.end());
  }

  /** Hands a chunk over at the link's rate, piece by piece. */
  #deliver(chunk: Buffer, device: Socket, done: () => void): void {
    if (device.destroyed) return;
    const rate = this.#bytesPerSecond;
    const piece = rate === null ? chunk : chunk.subarray(0, Math.max(1, Math.floor((rate * tickMs) / 1000)));
    device.write(piece);
    this.#count(piece.length);
    if (this.#receivedBytes >= this.#cutAt) {
      this.#cutNow();
      return;
    }
    const rest = chunk.subarray(piece.length);
    const next = (): void => { if (rest.length === 0) done(); else this.#deliver(rest, device, done); };
    if (rate === null) next();
    else setTimeout(next, (piece.length / rate) * 1000);
  }

  #count(byteCount: number): void {
    this.#receivedBytes += byteCount;
    const reached = this.#awaited.filter((each) => each.byteCount <= this.#receivedBytes);
    if (reached.length === 0) return;
    this.#awaited = this.#awaited.filter((each) => each.byteCount > this.#receivedBytes);
    for (const each of reached) each.then();
  }

  #cutNow(): void {
    this.#cut = true;
    this.#cutAt = Infinity;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#onCut?.();
    this.#onCut = null;
  }
}
