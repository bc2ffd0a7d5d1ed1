import { baseName, pathShape } from '../../delta/encode/content-index.js';
import type { ContentPlan } from '../../delta/plan.js';
import { typeflags } from '../../tar/index.js';
import type { LayerEntry } from '../../tar/types.js';

/** An entry that content is copied from or compared with. */
export interface SourceEntry {
  readonly from: 'basis' | 'target';
  readonly record: LayerEntry;
}

/** Why the content of an entry comes from where it does, in words. */
export function whyContent(record: LayerEntry, plan: ContentPlan, sources: readonly SourceEntry[]): string {
  const [first, ...others] = sources;
  if (plan.kind === 'none') return record.header.typeflag === typeflags.hardLink ? 'a hard link: no content of its own' : 'no content';
  if (plan.kind === 'copy') {
    if (first === undefined) return 'the same content';
    if (first.from === 'target') return 'the same content as an earlier file of this image';
    return first.record.header.path.equals(record.header.path) ? 'unchanged' : 'the same content under another path';
  }
  const inside = plan.expansion === null ? '' : whyExpanded(plan.expansion.deflated.length, plan.expansion.inflated.length);
  if (first === undefined) return `nothing like it in the basis: written out in full${inside}`;
  const more = others.length === 0 ? '' : `, and ${others.length === 1 ? 'another file' : `${String(others.length)} files`} that shares content`;
  return `${likeness(record, first)}${more}${inside}${plan.checksums === null ? '' : '; checksums of files that changed filled in'}`;
}

function likeness(record: LayerEntry, source: SourceEntry): string {
  const [path, old] = [record, source.record].map((each) => each.header.path.toString('latin1'));
  if (path === undefined || old === undefined) return 'similar content';
  if (path === old) return 'the same path';
  if (pathShape(path) === pathShape(old)) return 'the same path but for numbers';
  return baseName(path) === baseName(old) ? 'the same name elsewhere' : 'similar content';
}

function whyExpanded(deflated: number, inflated: number): string {
  const streams = (count: number): string => `${String(count)} compressed ${count === 1 ? 'stream' : 'streams'}`;
  if (deflated === 0) return `; ${streams(inflated)} of the old file read inflated`;
  return `; ${streams(deflated)} compared inflated`;
}
