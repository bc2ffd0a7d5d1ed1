import { request as httpRequest, type ClientRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { buildConnector } from 'undici';
import { systemErrorCode, WhittleError } from '../core/errors.js';
import type { Proxy, ProxyFinder } from './proxy.js';

/** How connections are made; what Node's TLS takes too. */
export type ConnectOptions = buildConnector.BuildOptions;

/**
 * A connector for the HTTP client that reaches https hosts through the proxies that `find` gives, by CONNECT. What goes to a proxy
 * itself, as plain http does, goes there directly.
 */
export function tunnelConnector(find: ProxyFinder, isProxy: (origin: string) => boolean, options: ConnectOptions): buildConnector.connector {
  const direct = buildConnector(options);
  return (to, callback) => {
    const target = new URL(`${to.protocol}//${to.host ?? to.hostname}`);
    const proxy = target.protocol === 'https:' && !isProxy(target.origin) ? find(target) : undefined;
    if (proxy === undefined) {
      direct(to, callback);
      return;
    }
    openTunnel(proxy, target, options.timeout ?? 0).then(
      (httpSocket) => { direct({ ...to, httpSocket }, callback); },
      (error: unknown) => { callback(error instanceof Error ? error : new Error(String(error)), null); },
    );
  };
}

/** Asks a proxy for a connection to the target's host. Throws REGISTRY_UNREACHABLE with what the proxy says. */
async function openTunnel(proxy: Proxy, target: URL, timeoutMs: number): Promise<Socket> {
  const place = `${target.hostname}:${target.port === '' ? '443' : target.port}`;
  const { hostname, port, protocol } = proxy.url;
  const isTls = protocol === 'https:';
  return new Promise((resolve, reject) => {
    const asked: ClientRequest = (isTls ? httpsRequest : httpRequest)({
      method: 'CONNECT', host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? (isTls ? 443 : 80) : Number(port), path: place, agent: false,
      headers: { host: place, ...(proxy.authorization === undefined ? {} : { 'proxy-authorization': proxy.authorization }) },
    });
    const failed = (problem: string, retryable: boolean, cause?: unknown): void => {
      clearTimeout(timer);
      asked.destroy();
      reject(new WhittleError('REGISTRY_UNREACHABLE', `${target.host}: the proxy ${proxy.url.host} ${problem}`, { cause, retryable, hint: `Check ${proxy.variable}; what is to be reached without it goes into NO_PROXY.` }));
    };
    const timer = setTimeout(() => { failed('gives no connection within the time allowed', true); }, timeoutMs);
    asked.on('error', (error) => { failed(`cannot be reached (${systemErrorCode(error) ?? error.message})`, true, error); });
    asked.on('response', (response) => { failed(refusal(response.statusCode), false); });
    asked.on('connect', (response, socket, head) => {
      const { statusCode = 0 } = response;
      if (statusCode < 200 || statusCode > 299) {
        socket.destroy();
        failed(refusal(statusCode), statusCode >= 500);
        return;
      }
      clearTimeout(timer);
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    asked.end();
  });
}

function refusal(status = 0): string {
  return status === 407 ? 'wants a login (407): write it into its URL, http://USER:PASSWORD@HOST:PORT' : `refuses the connection (${String(status)})`;
}
