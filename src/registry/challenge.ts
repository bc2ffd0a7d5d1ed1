/** One challenge of a WWW-Authenticate header. Scheme and parameter names are in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const maxHeaderLength = 16 * 1024;

/** One token, optionally followed by `=` and a token or quoted string. */
const part = /[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y;

/**
 * Takes a WWW-Authenticate header apart: any number of challenges, each with parameters. Text that is no challenge
 * ends the reading; what came before it counts.
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  if (header.length > maxHeaderLength) return challenges;
  part.lastIndex = 0;
  for (let match = part.exec(header); match !== null; match = part.exec(header)) {
    const [, name = '', quoted, bare] = match;
    const value = quoted === undefined ? bare : quoted.replace(/\\(.)/g, '$1');
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
    else challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
  }
  return challenges;
}
