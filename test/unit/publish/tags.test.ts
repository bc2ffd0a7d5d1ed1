import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { entryTag, fallbackTag, subjectOfTag } from '../../../src/registry/index.js';
import { compareVersions, fitsGlob, selectTags } from '../../../src/server/publish/tags.js';
import { digestOf } from '../../support/images.js';

const sorted = (...tags: string[]): string[] => [...tags].sort(compareVersions);

describe('tags as versions', () => {
  test.each([
    [['1.10', '1.9', '1.2'], ['1.2', '1.9', '1.10']],
    [['v2.0.0', 'v2.0.0-rc1', 'v1.9'], ['v1.9', 'v2.0.0-rc1', 'v2.0.0']],
    [['1.0.0-beta.10', '1.0.0-beta.9', '1.0.0', '1.0.0-alpha'], ['1.0.0-alpha', '1.0.0-beta.9', '1.0.0-beta.10', '1.0.0']],
    [['1.1', '1.1.1', '1'], ['1', '1.1', '1.1.1']],
    [['2024-11-02', '2024-2-28'], ['2024-2-28', '2024-11-02']],
    [['1.2-alpine', '1.2'], ['1.2', '1.2-alpine']],
  ])('%j are in the order %j', (tags, order) => {
    expect(sorted(...tags)).toEqual(order);
  });

  test('the order is one, whatever the tags', () => {
    const tag = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}$/);
    fc.assert(fc.property(tag, tag, tag, (a, b, c) => {
      expect(Math.sign(compareVersions(a, b))).toBe(-Math.sign(compareVersions(b, a)) + 0);
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
    }), { numRuns: 2000 });
  });

  test('the last few before the target, without lists of referrers and words', () => {
    const target = digestOf('target');
    const tags = ['1.0', '1.1', '1.2', '1.3', '1.10', 'latest', fallbackTag(target), entryTag(target, digestOf('delta'))];
    expect(selectTags(tags, { last: 2, target: '1.3' })).toEqual(['1.2', '1.1']);
    expect(selectTags(tags, { last: 2, target: 'latest' })).toEqual(['1.10', '1.3']);
    expect(selectTags(tags, { last: 9 })).toEqual(['1.10', '1.3', '1.2', '1.1', '1.0']);
    expect(selectTags(tags, { glob: '*', target: '1.3' })).toEqual(['latest', '1.10', '1.2', '1.1', '1.0'].sort((a, b) => compareVersions(b, a)));
    expect(selectTags(tags, { glob: '1.[12]', last: 1 })).toEqual(['1.2']);
  });

  test('globs stand for what they say, and for nothing else', () => {
    expect(['v1.2', 'v1x2', 'v1.', 'w1.2'].filter((tag) => fitsGlob(tag, 'v1.*'))).toEqual(['v1.2', 'v1.']);
    expect(fitsGlob('a+b', 'a+b')).toBe(true);
    expect(fitsGlob('aab', 'a+b')).toBe(false);
    expect(fitsGlob('1-2', '1?2')).toBe(true);
    expect(fitsGlob('[x', '[x')).toBe(true);
    fc.assert(fc.property(fc.string({ maxLength: 20 }), (glob) => { fitsGlob('v1.0', glob); }));
  });

  test('tags of lists are told from all others', () => {
    const [subject, referrer] = [digestOf('a'), digestOf('b')];
    expect(subjectOfTag(fallbackTag(subject))).toEqual({ subjectDigest: subject, entry: false });
    expect(subjectOfTag(entryTag(subject, referrer))).toEqual({ subjectDigest: subject, entry: true });
    for (const tag of ['v1', 'sha256-abc', `${fallbackTag(subject)}.sig`]) expect(subjectOfTag(tag)).toBeUndefined();
    expect(entryTag(subject, referrer).length).toBeLessThanOrEqual(128);
  });
});
