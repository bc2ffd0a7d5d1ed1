import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runOk } from '../../../bench/process.js';

const source = `
#include <stdio.h>
int main(int count, char **words) {
  for (int at = 1; at < count; at++) {
    FILE *file = fopen(words[at], "rb");
    int byte;
    if (!file) { printf("%s is not there\\n", words[at]); continue; }
    while ((byte = getc(file)) != EOF) putchar(byte);
    fclose(file);
  }
  return 0;
}
`;

let made: Promise<Buffer> | undefined;

/** A program that needs nothing but the kernel and prints the files that it is given: what a container can run. */
export function printer(): Promise<Buffer> {
  made ??= compile();
  return made;
}

async function compile(): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'whittle-cc-'));
  try {
    await writeFile(join(folder, 'print.c'), source);
    await runOk(['cc', '-static', '-Os', '-s', '-o', join(folder, 'print'), join(folder, 'print.c')]);
    return await readFile(join(folder, 'print'));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
