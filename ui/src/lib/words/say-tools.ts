// Finds the German of an English sentence that has no code of its own, by its pattern.

import type { ErrorBody } from '../api/types';
import { codes } from './de-errors';
import { phrases } from './de-phrases';

interface Pattern {
  find: RegExp;
  german: string;
  /** Letters that are not put in; of several patterns that fit, the one with most is meant. */
  weight: number;
}

/** Amounts as the program writes them, for example `1.5 GiB`. */
const AMOUNT = /\b(\d+)\.(\d+) ([kMGT]?i?B)\b/g;
/** Numbers as the program groups them, for example `2,048`. */
const GROUPED = /\b\d{1,3}(?:,\d{3})+\b/g;

let patterns: { exact: Map<string, string>; open: Pattern[] } | null = null;

/**
 * The German of a sentence or a fragment of one; null if it is in no pattern. What follows a known
 * beginning and a colon may be words of the system, which stay as they are, unless `whole`.
 */
export function phrase(text: string, whole = false): string | null {
  const asked = bare(text);
  const { exact, open } = (patterns ??= compile());
  const known = exact.get(asked);
  if (known !== undefined) return known;
  for (const { find, german } of open) {
    const found = find.exec(asked);
    if (!found) continue;
    return german.replace(/\{(\d)\}/g, (_, n: string) => put(found[Number(n) + 1] ?? ''));
  }
  // A chain of causes: each is said on its own.
  const at = asked.indexOf(': ');
  if (at < 0) return null;
  const [head, rest] = [phrase(asked.slice(0, at)), asked.slice(at + 2)];
  if (head === null || (whole && phrase(rest, true) === null)) return null;
  return `${head}: ${put(rest)}`;
}

/** An error's message as the beginning of a sentence. */
export function told({ code, message }: ErrorBody): string {
  return phrase(message) ?? codes[code];
}

/** A fragment as a sentence. */
export function sentenced(text: string): string {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

function put(text: string): string {
  const known = text === '' ? null : phrase(text);
  return (known ?? text)
    .replace(GROUPED, (number) => number.replaceAll(',', '.'))
    .replace(AMOUNT, '$1,$2 $3');
}

/** Without the full stop and the capital letter that a sentence has and a fragment has not. */
function bare(text: string): string {
  const trimmed = text.trim().replace(/\.$/, '');
  return trimmed.charAt(0).toLowerCase() + trimmed.slice(1);
}

function compile(): { exact: Map<string, string>; open: Pattern[] } {
  const exact = new Map<string, string>();
  const open: Pattern[] = [];
  for (const [english, german] of phrases) {
    const asked = bare(english);
    if (!asked.includes('{}')) {
      exact.set(asked, german);
      continue;
    }
    const pieces = asked.split('{}').map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    const find = new RegExp(`^${pieces.join('(.*?)')}$`, 's');
    open.push({ find, german, weight: asked.replaceAll('{}', '').length });
  }
  open.sort((a, b) => b.weight - a.weight);
  return { exact, open };
}
