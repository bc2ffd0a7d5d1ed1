import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sourceName, type Pair } from '../../../bench/pairs.js';
import { hasProgram, program, runOk } from '../../../bench/process.js';
import type { Service } from '../../../bench/services.js';
import { startDocker } from '../../support/engines/docker.js';
import { makePodman } from '../../support/engines/podman.js';

/** Where an update is measured. */
export interface Place {
  /** The filesystem that counts. */
  readonly disk: string;
  /** A folder elsewhere. */
  readonly scratch: string;
  readonly pair: Pair;
  /** Serves both images, and the delta between them. */
  readonly service: Service;
}

/** A program that holds images on a disk and is open on it. */
export interface Session {
  take(which: 'basis' | 'target'): Promise<void>;
  /** Ends whatever still uses the filesystem. */
  close(): Promise<void>;
}

/** One way to bring an image onto a disk. */
export interface WearTool {
  readonly name: string;
  /** What it is given, in one line. */
  readonly how: string;
  /** Programs that this machine lacks for it. */
  readonly wanting: readonly string[];
  open(place: Place): Promise<Session>;
}

const nothing = (): Promise<void> => Promise.resolve();

function lacking(...names: readonly string[]): string[] {
  return names.filter((name) => !hasProgram(name));
}

/** An image of the pair, by digest, where the service has it. */
function imageName({ pair, service }: Pick<Place, 'pair' | 'service'>, which: 'basis' | 'target'): string {
  return `127.0.0.1:${String(service.port)}/bench@${pair[which].manifestDigest}`;
}

/** Words that pull one image of the pair into a store. */
export function pullWords(place: Pick<Place, 'pair' | 'service'>, root: string, which: 'basis' | 'target', way: '--delta' | '--no-delta'): string[] {
  return [...program('device'), 'pull', way, '--json', '--root', root, imageName(place, which)];
}

function whittle(name: string, how: string, way: '--delta' | '--no-delta'): WearTool {
  return {
    name, how, wanting: [],
    open: (place) => Promise.resolve({
      take: async (which) => { await runOk(pullWords(place, join(place.disk, 'store'), which, which === 'basis' ? '--no-delta' : way)); },
      close: nothing,
    }),
  };
}

const umoci: WearTool = {
  name: 'umoci unpack', how: 'a bundle for each version; the layout is on another disk', wanting: lacking('umoci'),
  open: (place) => Promise.resolve({
    take: async (which) => {
      const { layout, tag } = place.pair[which];
      await runOk(['umoci', 'unpack', '--image', `${layout}:${tag}`, join(place.disk, which)]);
    },
    close: nothing,
  }),
};

const podman: WearTool = {
  name: 'podman pull', how: 'layers from delta-server on loopback; overlay; TMPDIR on the disk that counts', wanting: lacking('podman', 'runc'),
  open: async (place) => {
    const graphRoot = join(place.disk, 'podman');
    const temporary = join(place.disk, 'tmp');
    await mkdir(temporary, { recursive: true });
    const engine = await makePodman({ graphRoot, runRoot: join(place.scratch, 'run'), environment: { TMPDIR: temporary } });
    return {
      take: async (which) => { await engine.podman('pull', '--tls-verify=false', imageName(place, which)); },
      close: async () => {
        await engine.close();
        await unmountBelow(place.disk);
      },
    };
  },
};

function docker(name: string, how: string, take: (place: Place, which: 'basis' | 'target', command: readonly string[]) => Promise<void>): WearTool {
  return {
    name, how, wanting: lacking('dockerd', 'docker', 'skopeo'),
    open: async (place) => {
      const engine = await startDocker({ dataRoot: join(place.disk, 'docker') });
      return {
        take: (which) => take(place, which, ['docker', '-H', `unix://${engine.socket}`]),
        close: async () => {
          await engine.close();
          await unmountBelow(place.disk);
        },
      };
    },
  };
}

async function loadArchive(place: Place, which: 'basis' | 'target', command: readonly string[]): Promise<void> {
  const archive = join(place.scratch, `${which}.tar`);
  await runOk(['skopeo', 'copy', '--insecure-policy', sourceName(place.pair[which]), `docker-archive:${archive}:bench:${which}`]);
  await runOk([...command, 'load', '-i', archive]);
  await rm(archive);
}

/** Engines mount things within their own folders and leave them. */
async function unmountBelow(folder: string): Promise<void> {
  const points = (await readFile('/proc/self/mountinfo', 'latin1')).split('\n').map((line) => line.split(' ')[4] ?? '');
  for (const point of points.filter((each) => each.startsWith(`${folder}/`)).reverse()) await runOk(['umount', '-l', point]);
}

/** Every tool of the table. */
export const wearTools: readonly WearTool[] = [
  whittle('device pull --delta', 'a delta of profile fast from delta-server on loopback', '--delta'),
  whittle('device pull --no-delta', 'layers from delta-server on loopback', '--no-delta'),
  umoci, podman,
  docker('docker pull', 'layers from delta-server on loopback; overlay2', async (place, which, command) => { await runOk([...command, 'pull', imageName(place, which)]); }),
  docker('docker load', 'an archive on another disk; overlay2', loadArchive),
];
