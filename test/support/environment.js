import { TestEnvironment } from 'jest-environment-node';

const errorNames = ['Error', 'AggregateError', 'EvalError', 'RangeError', 'ReferenceError', 'SyntaxError', 'TypeError', 'URIError'];
const arrayNames = [
  'Int8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array', 'Uint32Array', 'Float32Array', 'Float64Array',
  'BigInt64Array', 'BigUint64Array', 'DataView', 'SharedArrayBuffer',
];

/**
 * Jest runs each test file in a realm of its own, whose Error is not the Error of Node's core: `fs` and `net` errors
 * would not be `instanceof Error` in tests, though they are in production. Here both realms share the outer classes.
 */
export default class SharedRealmEnvironment extends TestEnvironment {
  constructor(config, context) {
    super(config, context);
    for (const name of errorNames) {
      const outer = globalThis[name];
      const inner = this.global[name];
      // What the engine itself throws inside the sandbox still has the inner prototype: hang it below the outer one.
      if (inner !== outer) Object.setPrototypeOf(inner.prototype, outer.prototype);
      this.global[name] = outer;
    }
    // Addons and worker messages make typed arrays of the outer realm.
    for (const name of arrayNames) this.global[name] = globalThis[name];
  }
}
