'use strict';

const { createHash } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');
const { setFlagsFromString } = require('node:v8');
const { Script } = require('node:vm');

// How the device's program starts: bin/device.js runs it, bundle-device.mjs makes what it needs. Both have to do the same, for V8
// takes compiled code only under the flags and with the source that it was made with.

const bundlePath = join(__dirname, '../dist/bundle/device.cjs');
/** A sha256 of the Node that built it, of the program and of what follows, and what V8 compiled of the program at build time. */
const codePath = join(__dirname, '../dist/bundle/device.code');
const digestBytes = 32;

/** What a pull takes of Node's own modules; the others come with these. */
const nodeModules = ['node:assert', 'node:fs/promises', 'node:http', 'node:os', 'node:perf_hooks', 'node:readline', 'node:timers/promises', 'node:zlib'];

/**
 * Loads them, while V8 is set as Node starts it: what Node carries compiled of its modules is only good for that. Under other flags V8
 * compiles all hundred of them anew at every start, which takes two thirds of the time that Node takes to start.
 */
function loadNodeModules() {
  for (const name of nodeModules) require(name);
  // What reads arguments is loaded when it is first asked for.
  void require('node:util').parseArgs;
}

/** Sets V8 to a short program on a small machine. Before anything of the program is compiled. */
function setDeviceFlags() {
  loadNodeModules();
  // Left alone, V8's young generation grows until garbage buffers fill 40 MiB more, and the old one doubles before it is collected,
  // which is another 30 MiB. Measured on full pulls; it costs no time that shows.
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--heap-growing-percent=30');
  // There is little to collect at a time: waking other threads for it took longer than the collecting.
  setFlagsFromString('--no-parallel-scavenge');
  // A pull is over soon: optimizing what runs a little longer than the rest took a fifth of its processor time, and memory.
  setFlagsFromString('--interrupt-budget=400000');
  // The HTTP client's parser is WebAssembly: optimizing it took longer than all that it parses in a pull.
  setFlagsFromString('--no-wasm-dynamic-tiering');
  setFlagsFromString('--no-wasm-tier-up');
}

/** The program's text. It is ASCII, so that V8 holds a byte for each character. */
function readBundle() {
  return readFileSync(bundlePath, 'latin1');
}

/**
 * V8 takes code of its own version and flags, whatever it was made for: that of x86-64 makes it crash on arm64. So the digest holds
 * the Node too that the code is for.
 */
function digestOf(source, code) {
  const node = JSON.stringify([process.version, process.arch, process.config.variables]);
  return createHash('sha256').update(node).update(source, 'latin1').update(code).digest();
}

/** What `device.code` is to hold for `code`. */
function sealCode(code) {
  return Buffer.concat([digestOf(readBundle(), code), code]);
}

/** The code that goes with `source`; undefined when there is none, or not of this program and this Node: V8 itself does not look closely. */
function readCode(source) {
  let sealed;
  try {
    sealed = readFileSync(codePath);
  } catch {
    return undefined;
  }
  const code = sealed.subarray(digestBytes);
  return digestOf(source, code).equals(sealed.subarray(0, digestBytes)) ? code : undefined;
}

/** Loads the program: its `main`, and the script. Of another version of Node, or with other flags, the compiled code is passed over. */
function loadDevice() {
  const source = readBundle();
  const script = new Script(`(function(exports,require,module,bundleUrl){${source}\n})`, { filename: bundlePath, cachedData: readCode(source) });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(bundlePath), module, pathToFileURL(bundlePath).href);
  return { main: module.exports.main, script };
}

/** Where the program and its code are, for whoever makes them. */
const devicePaths = { bundle: bundlePath, code: codePath };

module.exports = { devicePaths, loadDevice, sealCode, setDeviceFlags };
