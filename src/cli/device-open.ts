import { resolve } from 'node:path';
import { withStorageErrors } from '../atomic/index.js';
import { isWhittleError, WhittleError } from '../core/errors.js';
import { formatList } from '../core/format.js';
import { openStore } from '../applier/store/open.js';
import type { OpenStoreOptions, Store, StoredImage } from '../applier/store/types.js';
import { storeName } from '../applier/pull/options.js';
import { parseReference } from '../oci/index.js';
import { defaultRoot, type CommandContext } from './device-command.js';

/**
 * Opens the store that the flags name, runs `work` with it, and closes it whatever happens. With `orReadOnly` a store on a
 * read-only filesystem is opened for reading, as it is: nothing is recovered.
 */
export async function withStore<T>(context: CommandContext, options: OpenStoreOptions & { readonly orReadOnly?: boolean }, work: (store: Store) => Promise<T>): Promise<T> {
  const root = resolve(context.get('root') ?? defaultRoot);
  const { orReadOnly, ...open } = options;
  const store = await openStore(root, open).catch((error: unknown) => {
    if (orReadOnly !== true || !isWhittleError(error) || error.code !== 'STORAGE_READ_ONLY') throw error;
    context.output.note('the filesystem is read-only: the store is shown as it is');
    return openStore(root, { ...open, readOnly: true });
  });
  // What a disk reports at an odd moment, such as the closing of a file, is a fault of the disk too.
  return withStorageErrors(`working on the store at ${root}`, async () => {
    try {
      const { removed, finished, fellBack } = store.recovery;
      if (removed + finished > 0) context.output.note(`recovered: ${String(finished)} finished, ${String(removed)} removed of what an interruption left`);
      for (const record of fellBack) context.output.warn(`${record} was damaged; its previous version is in use`);
      return await work(store);
    } finally {
      await store.close();
    }
  });
}

/** An image of the store, and the name under which the user asked for it (null when by digest or ID). */
export interface NamedImage {
  readonly image: StoredImage;
  readonly name: string | null;
}

/** The images whose ID or manifest digest begins with this, as the table of images shows them. */
async function imagesByDigits(store: Store, text: string): Promise<readonly StoredImage[]> {
  if (!/^[0-9a-f]{6,64}$/.test(text)) return [];
  const begins = (digest: string): boolean => digest.startsWith(`sha256:${text}`);
  return (await store.images()).filter((each) => begins(each.configDigest) || begins(each.manifestDigest));
}

/** The name that the user means. Throws USAGE, with its names, for an image that is given by its ID or digest. */
export async function requireName(store: Store, text: string): Promise<string> {
  // Of 64 digits no name is made, for fear of confusion.
  const name = isWholeId(text) ? null : storeName(parseReference(text));
  if (name !== null && (await store.resolve(name)) !== undefined) return name;
  const [image] = await imagesByDigits(store, text.replace(/^sha256:/, ''));
  if (image !== undefined) {
    throw new WhittleError('USAGE', `${text} is no name but an image, ${image.names.length === 0 ? 'which has none' : `called ${formatList(image.names, '')}`}`, { hint: 'Give a name, as "device images" shows it.' });
  }
  return name ?? storeName(parseReference(text));
}

function isWholeId(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** Finds a stored image by name, by digest, or by (the beginning of) its ID or manifest digest. Throws IMAGE_UNKNOWN, USAGE. */
export async function findImage(store: Store, text: string): Promise<NamedImage> {
  if (/^sha(256|512):[0-9a-f]+$/.test(text)) {
    const image = await store.findImage(text);
    if (image !== undefined) return { image, name: null };
  } else {
    const byDigits = await imagesByDigits(store, text);
    if (new Set(byDigits.map((each) => each.configDigest)).size > 1) throw new WhittleError('USAGE', `${text} is the beginning of several image IDs`);
    if (byDigits[0] !== undefined) return { image: byDigits[0], name: null };
    const name = isWholeId(text) ? null : storeName(parseReference(text));
    const image = name === null ? undefined : await store.resolve(name);
    if (image !== undefined) return { image, name };
  }
  throw new WhittleError('IMAGE_UNKNOWN', `${text} is not in the store`);
}
