import { createServer, connect, type Server, type Socket } from 'node:net';
import { join } from 'node:path';

/** A unix socket before another one, that cuts the connection when so many pieces have gone through to the daemon. */
export interface CuttingSocket {
  readonly path: string;
  /** Pieces that the next connection may send. */
  allow(pieces: number): void;
  /** Whether a connection was cut since `allow`. */
  readonly hasCut: boolean;
  close(): Promise<void>;
}

/** Opens one in `folder`; the caller closes it. */
export async function openCuttingSocket(folder: string, behind: string): Promise<CuttingSocket> {
  const socket = new Cutter(join(folder, 'cut.sock'), behind);
  await socket.listen();
  return socket;
}

class Cutter implements CuttingSocket {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #left = Infinity;
  hasCut = false;

  constructor(readonly path: string, private readonly behind: string) {
    this.#server = createServer((client) => { this.#join(client); });
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.path, resolve);
    });
  }

  allow(pieces: number): void {
    this.#left = pieces;
    this.hasCut = false;
  }

  #join(client: Socket): void {
    const daemon = connect(this.behind);
    for (const socket of [client, daemon]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        client.destroy();
        daemon.destroy();
      });
    }
    daemon.pipe(client);
    client.on('data', (piece: Buffer) => {
      if (this.#left-- > 0) {
        daemon.write(piece);
        return;
      }
      this.hasCut = true;
      client.destroy();
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
