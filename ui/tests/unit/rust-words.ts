// The sentences that stand in Rust sources, for the test that wants them in every language.

import { readFileSync } from 'node:fs';

/** Calls whose texts go to the log or end the program: no person reads them in the window. */
const SILENT =
  /(?:\b(?:trace|debug|info|warn|error|panic|unreachable|assert|assert_eq|debug_assert|say|span|info_span|concat|include_str|include_bytes|env|option_env|cfg|bail|println|eprintln)!\s*\(|\.expect(?:_err)?\(|#\[expect\([^\]]*reason = |\.context\(|\.with_context\()[^;"]*$/;

/** The texts of a source file that read like words for people, with `{}` for what is put in. */
export function sentencesOf(path: string): string[] {
  const source = withoutTests(readFileSync(path, 'utf8'));
  const found = new Set<string>();
  for (const { text, before } of literals(source)) {
    const attribute = /#\[error\(\s*$/.test(before);
    if (!attribute && SILENT.test(before)) continue;
    const words = text.replace(/\{[^{}]*\}/g, '{}').trim();
    if (/[A-Za-z]{2,}[,:;]? [A-Za-z{`(]/.test(words) || (attribute && /[a-z]{3}/.test(words))) {
      found.add(words);
    }
  }
  return [...found];
}

function withoutTests(source: string): string {
  const at = source.search(/^#\[cfg\(test\)\]\s+(?:#\[[^\]]*\]\s+)*mod tests/m);
  return at < 0 ? source : source.slice(0, at);
}

/** String literals with what stands before them in the same statement. */
function* literals(source: string): Generator<{ text: string; before: string }> {
  let at = 0;
  while (at < source.length) {
    if (source.startsWith('//', at)) {
      at = source.indexOf('\n', at);
      if (at < 0) return;
    } else if (/^'(?:[^'\\]|\\.[^']*)'/.test(source.slice(at, at + 12))) {
      at += /^'(?:[^'\\]|\\.[^']*)'/.exec(source.slice(at, at + 12))?.[0].length ?? 1;
    } else if (source[at] === 'r' && /^r(#*)"/.test(source.slice(at, at + 5))) {
      const hashes = /^r(#*)"/.exec(source.slice(at, at + 5))?.[1] ?? '';
      const end = source.indexOf(`"${hashes}`, at + 2 + hashes.length);
      at = end + 1 + hashes.length;
    } else if (source[at] === '"') {
      let end = at + 1;
      while (source[end] !== '"') end += source[end] === '\\' ? 2 : 1;
      const text = source
        .slice(at + 1, end)
        .replace(/\\\n\s*/g, '')
        .replace(/\\(.)/g, '$1');
      yield { text, before: source.slice(Math.max(0, at - 160), at) };
      at = end + 1;
    } else {
      at += 1;
    }
  }
}
