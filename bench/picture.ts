/** One bar: how many times less a tool downloads than a layer pull. */
export interface Bar {
  readonly tool: string;
  /** Layer pull bytes over delta bytes. */
  readonly times: number;
  readonly deltaBytes: number;
  readonly ours: boolean;
}

/** Bars of one pair. */
export interface BarGroup {
  readonly title: string;
  readonly bars: readonly Bar[];
}

const layout = { width: 920, margin: 24, label: 190, value: 190, bar: 18, gap: 5, groupGap: 30, titleHeight: 24, head: 66, foot: 40 } as const;
const colours = { ours: '#0b7285', other: '#adb5bd', text: '#212529', faint: '#5c636a', line: '#dee2e6', paper: '#ffffff' } as const;

const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');

function text(x: number, y: number, words: string, options: { size?: number; bold?: boolean; fill?: string; end?: boolean } = {}): string {
  const { size = 13, bold = false, fill = colours.text, end = false } = options;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${String(size)}"${bold ? ' font-weight="600"' : ''} fill="${fill}"${end ? ' text-anchor="end"' : ''}>${escape(words)}</text>`;
}

/** Bytes with three digits, for labels. */
function shortBytes(count: number): string {
  if (count < 1000) return `${String(count)} B`;
  const [value, unit] = count < 1e6 ? [count / 1e3, 'kB'] : [count / 1e6, 'MB'];
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}

/** A bar chart as one self-contained SVG. Each pair has its own scale, so that its longest bar fills the width. */
export function drawSavings(title: string, subtitle: string, groups: readonly BarGroup[], footer: string): string {
  const { width, margin, label, value, bar, gap, groupGap, titleHeight, head, foot } = layout;
  const barX = margin + label;
  const barWidth = width - barX - value - margin;
  const parts: string[] = [text(margin, 34, title, { size: 20, bold: true }), text(margin, 54, subtitle, { fill: colours.faint })];
  let y: number = head;
  for (const group of groups) {
    y += groupGap - 12;
    parts.push(`<line x1="${String(margin)}" x2="${String(width - margin)}" y1="${String(y)}" y2="${String(y)}" stroke="${colours.line}"/>`);
    y += titleHeight;
    parts.push(text(margin, y - 4, group.title, { size: 14, bold: true }));
    const longest = Math.max(...group.bars.map((one) => one.times));
    for (const one of group.bars) {
      y += gap;
      const length = Math.max(2, (one.times / longest) * barWidth);
      const middle = y + bar - 5;
      parts.push(text(barX - 10, middle, one.tool, { end: true, bold: one.ours }));
      parts.push(`<rect x="${String(barX)}" y="${String(y)}" width="${length.toFixed(1)}" height="${String(bar)}" rx="2" fill="${one.ours ? colours.ours : colours.other}"/>`);
      parts.push(text(barX + length + 8, middle, `${one.times.toFixed(1)}× less`, { bold: one.ours }));
      parts.push(text(width - margin, middle, shortBytes(one.deltaBytes), { end: true, fill: colours.faint }));
      y += bar;
    }
  }
  const height = y + foot;
  parts.push(text(margin, height - 14, footer, { size: 11, fill: colours.faint }));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${String(width)} ${String(height)}" width="${String(width)}" height="${String(height)}" role="img" font-family="Helvetica, Arial, sans-serif">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${String(width)}" height="${String(height)}" rx="6" fill="${colours.paper}"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}
