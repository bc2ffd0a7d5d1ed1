import { resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { openStore } from '../applier/store/open.js';
import type { OpenStoreOptions, Store, StoredImage } from '../applier/store/types.js';
import { storeName } from '../applier/pull/options.js';
import { archiveSource } from '../applier/pull/archive-source.js';
import type { ImageSource } from '../applier/pull/image-source.js';
import { parseFromUrl, registrySource } from '../applier/pull/registry-source.js';
import { parseReference, type Reference } from '../oci/index.js';
import { isLoopbackHost } from '../registry/endpoint.js';
import { fixedCredentials, parseCreds, storedCredentials } from '../registry/index.js';
import type { CommandContext, Flag } from './device-command.js';

const defaultRoot = '/var/lib/whittle';

/** Opens the store that the flags name, runs `work` with it, and closes it whatever happens. */
export async function withStore<T>(context: CommandContext, options: OpenStoreOptions, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(resolve(context.get('root') ?? defaultRoot), options);
  try {
    const { removed, finished, fellBack } = store.recovery;
    if (removed + finished > 0) context.output.note(`recovered: ${String(finished)} finished, ${String(removed)} removed of what an interruption left`);
    for (const record of fellBack) context.output.warn(`${record} was damaged; its previous version is in use`);
    return await work(store);
  } finally {
    await store.close();
  }
}

/** An image of the store, and the name under which the user asked for it (null when by digest or ID). */
export interface NamedImage {
  readonly image: StoredImage;
  readonly name: string | null;
}

/** Finds a stored image by name, by digest, or by (the beginning of) its ID. Throws IMAGE_UNKNOWN, USAGE. */
export async function findImage(store: Store, text: string): Promise<NamedImage> {
  if (/^sha(256|512):[0-9a-f]+$/.test(text)) {
    const image = await store.findImage(text);
    if (image !== undefined) return { image, name: null };
  } else {
    const byId = /^[0-9a-f]{6,64}$/.test(text) ? (await store.images()).filter((each) => each.configDigest.startsWith(`sha256:${text}`)) : [];
    if (byId.length > 1 && new Set(byId.map((each) => each.configDigest)).size > 1) throw new WhittleError('USAGE', `${text} is the beginning of several image IDs`);
    if (byId[0] !== undefined) return { image: byId[0], name: null };
    const name = storeName(parseReference(text));
    const image = await store.resolve(name);
    if (image !== undefined) return { image, name };
  }
  throw new WhittleError('IMAGE_UNKNOWN', `${text} is not in the store`);
}

/** Flags that say where from and how an image is fetched. */
export const sourceFlags: readonly Flag[] = [
  { name: 'from', value: 'PLACE', help: 'fetch from another registry (http://HOST:PORT[/REPOSITORY], https://…) or from oci-archive:FILE' },
  { name: 'plain-http', help: 'speak plain http with a registry that is not on this machine' },
  { name: 'creds', value: 'USER:PASSWORD', help: 'log in with these (default: ~/.docker/config.json)' },
];

/** Opens the place that the flags and the image's name lead to. The caller closes it. Throws USAGE, IMAGE_*. */
export async function openImageSource(context: CommandContext, reference: Reference): Promise<ImageSource> {
  const from = context.get('from');
  const local = /^(oci-archive|oci):(?!\/\/)(.+)$/s.exec(from ?? '');
  if (local !== null) return archiveSource(local[1] === 'oci' ? 'oci' : 'oci-archive', local[2] ?? '');
  const creds = context.get('creds');
  const place = from === undefined ? null : parseFromUrl(from);
  const scheme = context.has('plain-http') ? true : place?.plainHttp;
  // A URL that says http is taken at its word only where nobody can listen.
  const host = place?.registry ?? reference.registry;
  if (scheme === true && !context.has('plain-http') && !isLoopbackHost(host)) {
    throw new WhittleError('USAGE', `--from: plain http to ${host}, which is not this machine`, { hint: 'Use https://, or add --plain-http if nobody on the way can be a danger.' });
  }
  return registrySource(reference, place, {
    plainHttp: scheme,
    credentials: creds === undefined ? storedCredentials() : fixedCredentials(parseCreds(creds)),
    onRetry: (error) => { context.output.note(`trying again: ${error.message}`); },
  });
}
