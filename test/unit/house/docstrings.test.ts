import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import ts from 'typescript';
import { projectRoot } from '../../../bench/process.js';
import { errorCodes } from '../../../src/core/error-codes.js';

/** Names that are another's, all of them, and explained at the head of the file. */
const othersNames = ['applier/engines/containerd/messages.ts'];

interface Source { readonly name: string; readonly text: string }

async function sources(): Promise<Source[]> {
  const names = (await readdir(join(projectRoot, 'src'), { recursive: true })).filter((name) => name.endsWith('.ts') && !othersNames.includes(name)).sort();
  return Promise.all(names.map(async (name) => ({ name, text: await readFile(join(projectRoot, 'src', name), 'utf8') })));
}

const isExported = (node: ts.Statement): boolean => ts.canHaveModifiers(node) && ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
const hasDoc = (node: ts.Node): boolean => ts.getJSDocCommentsAndTags(node).length > 0;
const isPublic = (member: ts.ClassElement): boolean => member.name !== undefined && !ts.isPrivateIdentifier(member.name)
  && (ts.getCombinedModifierFlags(member) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) === 0;

/** What a class declares itself: the rest has its words at the interface or the class that it is a kind of. */
function ownMembers(node: ts.Statement): readonly ts.ClassElement[] {
  if (!ts.isClassDeclaration(node) || node.heritageClauses !== undefined) return [];
  return node.members.filter((member) => isPublic(member) && (ts.isMethodDeclaration(member) || ts.isGetAccessor(member)));
}

function undocumented({ name, text }: Source): string[] {
  const file = ts.createSourceFile(name, text, ts.ScriptTarget.ES2022, true);
  return file.statements.filter((node) => isExported(node)).flatMap((node) => [node, ...ownMembers(node)]).filter((node) => !hasDoc(node))
    .map((node) => `${name}:${String(file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1)}`);
}

test('everything that a module exports says what it is, and every method of its classes what it does', async () => {
  const all = await sources();
  expect(all.length).toBeGreaterThan(200);
  expect(all.flatMap(undocumented)).toEqual([]);
  expect(undocumented({ name: 'x.ts', text: 'export const a = 1;\n/** B. */\nexport class B {\n  c(): void {}\n  #d(): void {}\n}' })).toEqual(['x.ts:1', 'x.ts:4']);
});

test('error codes in comments are codes that there are', async () => {
  const codes = Object.keys(errorCodes);
  const rooms = new Set(codes.map((code) => code.split('_')[0]));
  const wrong: string[] = [];
  for (const { name, text } of await sources()) {
    for (const [comment] of text.matchAll(/\/\*\*[\s\S]*?\*\/|\/\/.*/g)) {
      for (const [, word = '', star] of comment.matchAll(/(?<!\$)\b([A-Z]+(?:_[A-Z]+)*_?)(\*)?(?![\w*])/g)) {
        if (!rooms.has(word.split('_')[0]) || !word.includes('_')) continue;
        if (!codes.some((code) => (star === undefined ? code === word : code.startsWith(word)))) wrong.push(`${name}: ${word}${star ?? ''}`);
      }
    }
  }
  expect(wrong).toEqual([]);
});
