// Nothing that the program says in English is shown as it came, and no number in a fixed language.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

const SRC = join(import.meta.dirname, '../../src');

function pages(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return pages(path);
    return name.endsWith('.svelte') ? [path] : [];
  });
}

/** Fields of the contract that hold the program's own sentences. */
const SAID = /\.(message|sentence|hint|no_cards|resting|finding|fix)\b/g;
/** What puts them into the language shown: the words come through it on the same line. */
const SPOKEN =
  /\b(shown|shownError|shownCheck|stateSentence|entrySentence|resumeSentence|asideSentence|said|saidCheck)\b/;
/** Lines that only ask whether there is one, and what a part shows that translates errors itself. */
const ASKS = /\{#(if|each) [^}]*\}|\{:else if [^}]*\}|error=\{/;

/** Lines of a page that show a sentence untranslated. */
function raw(text: string): string[] {
  const markup = text
    .replace(/<style>[\s\S]*<\/style>/, '')
    .replace(/<script[\s\S]*?<\/script>/g, '');
  return markup
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.match(SAID) && !SPOKEN.test(line) && !ASKS.test(line));
}

describe('what the program says', () => {
  it('is put into the language shown wherever a page shows it', () => {
    const found = pages(SRC).flatMap((path) =>
      raw(readFileSync(path, 'utf8')).map((line) => `${path.slice(SRC.length + 1)}: ${line}`),
    );
    expect(found).toEqual([]);
  });

  it('would be found', () => {
    expect(raw('<p>{alert.sentence}</p>')).toHaveLength(1);
    expect(raw('<p>{words.failed(card.state.message)}</p>')).toHaveLength(1);
    expect(raw('<p>{words.failed(shown(card.state.message))}</p>')).toEqual([]);
  });

  it('has its numbers and dates as the language writes them', () => {
    const fixed = /toLocale\w*\(\s*['"`]|Intl\.\w+\(\s*['"`]/;
    const found = pages(SRC).filter((path) => fixed.test(readFileSync(path, 'utf8')));
    expect(found).toEqual([]);
    expect(fixed.test("value.toLocaleString('en', {")).toBe(true);
  });
});
