import { BlockList, isIP } from 'node:net';
import { WhittleError } from '../core/errors.js';
import { isLoopbackHost } from './endpoint.js';

/** A proxy that requests go through. */
export interface Proxy {
  /** The variable of the environment that names it. */
  readonly variable: string;
  /** Without user and password. */
  readonly url: URL;
  /** The Proxy-Authorization header, where its URL names a login. */
  readonly authorization: string | undefined;
}

/** Finds the proxy for a URL; undefined: it is reached directly. Throws USAGE where the environment names something that is no proxy. */
export type ProxyFinder = (target: URL) => Proxy | undefined;

const defaultPorts: Readonly<Record<string, string>> = { 'http:': '80', 'https:': '443' };

/**
 * Proxies as the environment names them, by the rules of Docker and Podman: `HTTPS_PROXY` for https, `HTTP_PROXY` for http, `NO_PROXY`
 * for what is reached directly, each in capitals or not; and as curl reads them, `ALL_PROXY` where the one for the protocol is not set. What is on this machine is never asked of a proxy. Undefined where none is named.
 */
export function environmentProxies(env: NodeJS.ProcessEnv): ProxyFinder | undefined {
  const named = (name: string): string => (env[name.toLowerCase()] ?? env[name] ?? '').trim();
  const firstSet = (...names: readonly string[]): { name: string; text: string } => {
    const name = names.find((each) => named(each) !== '') ?? '';
    return { name, text: named(name) };
  };
  const proxies = new Map([['http:', firstSet('HTTP_PROXY', 'ALL_PROXY')], ['https:', firstSet('HTTPS_PROXY', 'ALL_PROXY')]]);
  if ([...proxies.values()].every(({ text }) => text === '')) return undefined;
  const isExempt = exemptions(named('NO_PROXY'));
  return (target) => {
    const { name = '', text = '' } = proxies.get(target.protocol) ?? {};
    return text === '' || isLoopbackHost(target.host) || isExempt(target) ? undefined : parseProxy(text, name);
  };
}

function parseProxy(text: string, name: string): Proxy {
  const full = text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  // The value is not repeated: it may hold a password.
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    throw new WhittleError('USAGE', `${name} names no proxy that can be used`, { hint: `Write ${name}=http://[USER:PASSWORD@]HOST:PORT. Other kinds, such as socks5, are not spoken; what is to be reached without it goes into NO_PROXY.` });
  }
  const { username, password } = url;
  url.username = '';
  url.password = '';
  const login = (part: string): string => decodeURIComponent(part.replace(/%(?![0-9a-fA-F]{2})/g, '%25'));
  return { variable: name, url, authorization: username === '' ? undefined : `Basic ${Buffer.from(`${login(username)}:${login(password)}`).toString('base64')}` };
}

/** Reads `NO_PROXY`: hosts with all below them, with a port or without; addresses, networks as 10.0.0.0/8, or `*` for everything. */
function exemptions(text: string): (target: URL) => boolean {
  const networks = new BlockList();
  const names: { readonly name: string; readonly port: string }[] = [];
  for (const entry of text.split(/[\s,]+/).filter((each) => each !== '')) {
    const [, network = '', bits = ''] = /^([0-9a-fA-F.:]+)\/([0-9]{1,3})$/.exec(entry) ?? [];
    const family = isIP(network);
    if (family !== 0 && Number(bits) <= (family === 4 ? 32 : 128)) networks.addSubnet(network, Number(bits), family === 4 ? 'ipv4' : 'ipv6');
    else names.push(exemptName(entry));
  }
  return (target) => {
    const host = target.hostname.replace(/^\[|\]$/g, '').toLowerCase();
    const port = target.port === '' ? defaultPorts[target.protocol] : target.port;
    if (names.some((each) => (each.port === '' || each.port === port) && (each.name === '*' || host === each.name || host.endsWith(`.${each.name}`)))) return true;
    const family = isIP(host);
    return family !== 0 && networks.check(host, family === 4 ? 'ipv4' : 'ipv6');
  };
}

function exemptName(entry: string): { name: string; port: string } {
  const [, bare = entry, port = ''] = isIP(entry) === 6 ? [] : (/^(.+?)(?::([0-9]{1,5}))?$/.exec(entry) ?? []);
  return { name: bare.replace(/^\[|\]$/g, '').replace(/^(?:\*?\.)(?=.)/, '').toLowerCase(), port };
}
