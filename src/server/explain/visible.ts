/**
 * A name from an untrusted tar as text that is safe to print: bytes that are no UTF-8, control characters and those that
 * reorder or hide text come as `\x1b` or `\u{202e}`.
 */
export function visibleName(bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    text = Array.from(bytes, (byte) => (byte < 0x80 ? String.fromCharCode(byte) : escapeByte(byte))).join('');
  }
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return code < 0x100 ? escapeByte(code) : `\\u{${code.toString(16)}}`;
  });
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}
