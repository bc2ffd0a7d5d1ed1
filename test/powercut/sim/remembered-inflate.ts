import { createHash } from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import zlib from 'node:zlib';

/**
 * Every crash state holds the same few metadata files, and to unpack them again for each took a third of the time: the same
 * input gives what it gave before. To be imported before the product is.
 */
const results = new Map<string, Buffer>();
const maxRemembered = 1000;
const inflate = zlib.inflate;

type Callback = (error: Error | null, result: Buffer) => void;

function remembered(input: Buffer, options: zlib.ZlibOptions, callback: Callback): void {
  const key = createHash('sha1').update(input).digest('base64');
  const known = results.get(key);
  if (known !== undefined) {
    queueMicrotask(() => { callback(null, Buffer.from(known)); });
    return;
  }
  inflate(input, options, (error, result) => {
    if (error === null && results.size < maxRemembered) results.set(key, Buffer.from(result));
    callback(error, result);
  });
}

Object.assign(zlib, { inflate: remembered });
syncBuiltinESMExports();
