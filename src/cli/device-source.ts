import { WhittleError } from '../core/errors.js';
import { archiveSource } from '../applier/pull/archive-source.js';
import type { ImageSource } from '../applier/pull/image-source.js';
import { parseFromUrl, registrySource } from '../applier/pull/registry-source.js';
import type { Reference } from '../oci/index.js';
import { isLoopbackHost } from '../registry/endpoint.js';
import { fixedCredentials, parseCreds, storedCredentials } from '../registry/index.js';
import type { CommandContext, Flag } from './device-command.js';

/** Flags that say where from and how an image is fetched. */
export const sourceFlags: readonly Flag[] = [
  { name: 'from', value: 'PLACE', help: 'fetch from another registry (http://HOST:PORT[/REPOSITORY], https://…) or from oci-archive:FILE' },
  { name: 'plain-http', help: 'speak plain http with a registry that is not on this machine' },
  { name: 'creds', value: 'USER:PASSWORD', help: 'log in with these (default: ~/.docker/config.json)' },
];

/** Opens the place that the flags and the image's name lead to, from which at most `maxBytes` may come. The caller closes it. Throws USAGE, IMAGE_*. */
export async function openImageSource(context: CommandContext, reference: Reference, maxBytes: number | null = null): Promise<ImageSource> {
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
    plainHttp: scheme, maxReceivedBytes: maxBytes ?? undefined,
    credentials: creds === undefined ? storedCredentials() : fixedCredentials(parseCreds(creds)),
    onRetry: (error) => { context.output.note(`trying again: ${error.message}`); },
  });
}
