import { request } from 'undici';
import type { BlobSource } from '../../src/applier/pull/source.js';

/** A BlobSource over plain HTTP for tests that need no registry. Follows redirects; throws nothing for good. */
export function httpSource(url: string): BlobSource {
  return {
    name: 'blob x',
    open: async (from, ifRange, signal) => {
      let target = url;
      for (let hop = 0; ; hop++) {
        const reply = await request(target, {
          signal,
          headers: { 'accept-encoding': 'identity', ...(from > 0 ? { range: `bytes=${String(from)}-` } : {}), ...(ifRange === null ? {} : { 'if-range': ifRange }) },
        });
        const location = reply.headers['location'];
        if (reply.statusCode >= 300 && reply.statusCode < 400 && typeof location === 'string' && hop < 5) {
          await reply.body.dump();
          target = new URL(location, target).href;
          continue;
        }
        return {
          status: reply.statusCode,
          header: (name) => { const value = reply.headers[name]; return Array.isArray(value) ? value.join(', ') : value; },
          body: reply.body,
        };
      }
    },
  };
}
