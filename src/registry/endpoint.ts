import { WhittleError } from '../core/errors.js';
import { defaultRegistry, isRegistryHost } from '../oci/reference.js';

/** Where Docker Hub's images are served, which is not where its name points. */
const dockerHubHost = 'registry-1.docker.io';

/** True for hosts that never leave this machine: `localhost`, 127.0.0.0/8, `::1`. */
export function isLoopbackHost(host: string): boolean {
  const name = host.replace(/:[0-9]+$/, '').replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || /^127(?:\.[0-9]{1,3}){3}$/.test(name);
}

/**
 * The origin (`https://host[:port]`) behind a reference's registry. Plain http only on loopback, or when `plainHttp`
 * says so; `plainHttp: false` insists on TLS on loopback too. Throws USAGE when it is no host.
 */
export function registryOrigin(registry: string, plainHttp: boolean | undefined): string {
  if (!isRegistryHost(registry)) throw new WhittleError('USAGE', `not a registry host: ${JSON.stringify(registry.slice(0, 260))}`);
  const host = registry === defaultRegistry ? dockerHubHost : registry;
  const scheme = (plainHttp ?? isLoopbackHost(host)) ? 'http' : 'https';
  return new URL(`${scheme}://${host}`).origin;
}

/** A URL fit for messages: user, password and the values of its query are left out, and it is kept short. */
export function redactUrl(url: URL): string {
  const query = url.search === '' ? '' : '?…';
  const text = `${url.origin}${url.pathname}`;
  return `${text.length > 300 ? `${text.slice(0, 300)}…` : text}${query}`;
}
