// Prints the C++ sources of one addon ("device" or "server"), one a line, for binding.gyp.
// native/codec, native/brotli, native/deflate and native/streams are shared: their files named encode* belong to the server, decode* to the device, all others to both.
import { readdirSync } from 'node:fs';

const foreignPrefix = { device: 'encode', server: 'decode' };
const directories = { device: ['device', 'common', 'linux', 'codec', 'brotli', 'deflate', 'streams'], server: ['server', 'common', 'match', 'meter', 'codec', 'brotli', 'deflate', 'streams'] };
const shared = ['codec', 'brotli', 'deflate', 'streams'];
const addon = process.argv[2];
if (!(addon in directories)) throw new Error(`usage: list-sources.mjs device|server, not ${String(addon)}`);

for (const directory of directories[addon]) {
  const names = readdirSync(new URL(directory, import.meta.url)).filter((name) => name.endsWith('.cc')).sort();
  for (const name of names) {
    if (!shared.includes(directory) || !name.startsWith(foreignPrefix[addon])) console.log(`${directory}/${name}`);
  }
}
