import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectRoot } from './process.js';
import { measureSizes } from './sizes.js';

// Puts today's delta sizes on record; the test of sizes holds later ones to them.
const sizes = await measureSizes();
await writeFile(join(projectRoot, 'bench/sizes.json'), `${JSON.stringify(sizes, null, 2)}\n`);
process.stdout.write(`${JSON.stringify(sizes, null, 2)}\n`);
