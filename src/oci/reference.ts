import { WhittleError } from '../core/errors.js';
import { isDigest } from './digest.js';

/** An image reference taken apart, with Docker's defaults filled in. */
export interface Reference {
  /** `host[:port]`, lower case as written by Docker: `docker.io` when none was given. */
  readonly registry: string;
  /** Path below the registry, like `library/alpine`. */
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: string;
}

/** The registry of references that name none. */
export const defaultRegistry = 'docker.io';

const maxNameLength = 255;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const domainLabel = '(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])';
const registryPattern = new RegExp(`^(?:${domainLabel}(?:\\.${domainLabel})*|\\[[0-9A-Fa-f:]{2,39}\\])(?::[0-9]{1,5})?$`);
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

function refuse(text: string, problem: string, hint?: string): never {
  throw new WhittleError('USAGE', `not an image reference: ${JSON.stringify(text.slice(0, 300))}: ${problem}`, hint === undefined ? {} : { hint });
}

/** True for a tag as registries accept it. */
export function isTag(text: string): boolean {
  return tagPattern.test(text);
}

/** True for a repository path as registries accept it (`a/b/c`, lower case). */
export function isRepository(text: string): boolean {
  return text.length <= maxNameLength && text.split('/').every((part) => component.test(part));
}

/** True for `host[:port]`, a name or an address (IPv6 in brackets). */
export function isRegistryHost(text: string): boolean {
  // The pattern lets addresses through that are none, such as 1.2.3.4.5.
  if (!registryPattern.test(text) || !URL.canParse(`https://${text}/`)) return false;
  const port = /:([0-9]+)$/.exec(text.replace(/^\[[^\]]*\]/, ''))?.[1];
  return port === undefined || (Number(port) > 0 && Number(port) < 65536);
}

function looksLikeRegistry(first: string): boolean {
  return first === 'localhost' || /[.:[]/.test(first) || first !== first.toLowerCase();
}

function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const hasRegistry = slash > 0 && looksLikeRegistry(first);
  const named = hasRegistry ? first : defaultRegistry;
  const registry = named === 'index.docker.io' || named === 'registry-1.docker.io' ? defaultRegistry : named;
  const path = hasRegistry ? name.slice(slash + 1) : name;
  return { registry, repository: registry === defaultRegistry && !path.includes('/') ? `library/${path}` : path };
}

/** The part after the last `:` that stands behind the last `/`, which is a tag and not a port. */
function splitTag(name: string): { name: string; tag?: string } {
  const colon = name.lastIndexOf(':');
  if (colon <= name.lastIndexOf('/')) return { name };
  return { name: name.slice(0, colon), tag: name.slice(colon + 1) };
}

/**
 * Reads an image reference as Docker writes it: `[host[:port]/]repository[:tag][@digest]`. Neither tag nor digest
 * is filled in here: see `referenceTag`. Throws USAGE, saying which part is wrong.
 */
export function parseReference(text: string): Reference {
  const scheme = /^[a-z-]+:\/\//i.exec(text)?.[0];
  if (scheme !== undefined) refuse(text, `the name begins with the registry, not with ${scheme}`, 'Write it as for docker: [HOST[:PORT]/]REPOSITORY[:TAG].');
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) refuse(text, 'what follows @ is not a sha256 or sha512 digest');
  const { name, tag } = splitTag(at < 0 ? text : text.slice(0, at));
  if (tag !== undefined && !isTag(tag)) refuse(text, 'the tag has characters that tags cannot have, or is empty or too long');
  if (name === '') refuse(text, 'it names no repository');
  if (/^[0-9a-f]{64}$/.test(name)) refuse(text, 'this is an image ID, not a name');
  const { registry, repository } = splitRegistry(name);
  if (!isRegistryHost(registry)) refuse(text, `${JSON.stringify(registry)} is not a registry host`);
  if (!isRepository(repository)) {
    refuse(text, repository === repository.toLowerCase() ? 'the repository is not a valid name' : 'repository names are lower case');
  }
  if (registry.length + 1 + repository.length > maxNameLength) refuse(text, `the name is longer than ${String(maxNameLength)} characters`);
  return { registry, repository, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) };
}

/** What to ask a registry for: the digest when there is one, else the tag, else `latest`. */
export function referenceTarget(reference: Reference): string {
  return reference.digest ?? referenceTag(reference);
}

/** The tag of a reference, `latest` when it names none. */
export function referenceTag(reference: Reference): string {
  return reference.tag ?? 'latest';
}

/** `registry/repository[:tag][@digest]`, every default written out but the tag. */
export function formatReference(reference: Reference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}
