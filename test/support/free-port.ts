import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * A port on 127.0.0.1 that was free a moment ago, for a program that cannot be told to choose one itself. It lies below the range
 * from which the kernel takes ports for outgoing connections (/proc/sys/net/ipv4/ip_local_port_range, from 32768), so that no
 * connection of another test can take it before the program does.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => { resolve(false); });
      server.listen(port, '127.0.0.1', () => { resolve(true); });
    });
    if (!free) continue;
    await new Promise<void>((resolve) => { server.close(() => { resolve(); }); });
    return port;
  }
  throw new Error('no free port between 20000 and 31999');
}
