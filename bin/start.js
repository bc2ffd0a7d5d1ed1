'use strict';

// What both programs do around their main. This folder is CommonJS, for Node takes longer to set up its loader of ES modules than to
// load the device's program.

/** Runs the main that `load` gives, and says so where the program that it belongs to is not built. */
async function start(program, load) {
  let ended = false;
  // Nothing is left that main could wait for: without this Node would end as if all had been done.
  process.once('exit', () => {
    if (!ended) process.exitCode ??= 13;
  });
  try {
    const main = await load();
    await main(process.argv.slice(2));
  } catch (error) {
    if (!['ENOENT', 'MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'].includes(error?.code)) throw error;
    process.stderr.write(`${program}: this installation is not built (${String(error.message).split('\n')[0]})\n  Run: npm install && npm run build\n`);
    process.exitCode = 1;
  } finally {
    ended = true;
  }
}

module.exports = { start };
