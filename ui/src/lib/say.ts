// What the program says, in the language shown. English sentences come from the program as they
// are; another language is made from the codes beside them. See docs/adr/0015.

import type {
  Check,
  Decision,
  Entry,
  ErrorBody,
  ErrorCode,
  LibraryStatus,
  Snapshot,
} from './api/types';
import { tongue } from './language.svelte';
import { codes, summaries } from './words/de-errors';
import {
  asideWords,
  downloadsWait,
  gentleWords,
  miningWords,
  resumeWords,
  sayingWords,
} from './words/de-say';
import { phrase } from './words/say-tools';

/** An error as the window shows it. */
export interface ShownError {
  message: string;
  hint?: string;
  /** The program's own words, where only their kind could be said in this language. */
  detail?: string;
}

/** The state sentence. */
export function stateSentence({ mining, network, job, control }: Snapshot): string {
  if (tongue() === 'en') return mining.sentence;
  const words = miningWords(mining.said, { network, job, decided: control.decision.said });
  const gentle =
    control.decision.gentle && (mining.state === 'waiting' || mining.state === 'working');
  return gentle ? `${words} ${gentleWords}` : words;
}

/** The sentence of a past decision; old ones are kept in English alone. */
export function entrySentence(entry: Entry): string {
  return tongue() === 'en' || !entry.said ? entry.sentence : sayingWords(entry.said);
}

/** What "Resume anyway" would do. */
export function resumeSentence(decision: Decision): string {
  const { resume, resume_lifts } = decision;
  return tongue() === 'en' || resume === null ? (resume ?? '') : resumeWords(resume_lifts);
}

/** Which rules the person's choice sets aside. */
export function asideSentence(decision: Decision): string {
  const { aside, aside_lifts } = decision;
  return tongue() === 'en' || aside === null ? (aside ?? '') : asideWords(aside_lifts);
}

/** Why downloads rest; nothing where they do not. */
export function restingSentence({ resting, waits_for }: LibraryStatus): string {
  if (tongue() === 'en' || resting === null) return resting ?? '';
  return waits_for === null ? shown(resting) : downloadsWait(waits_for);
}

/** An error's words. */
export function shownError(error: Pick<ErrorBody, 'message' | 'hint'> & { code?: ErrorCode }) {
  return tongue() === 'en' ? plain(error) : translated(error);
}

/** A sentence that the program made for people and that has no code: as it is where unknown. */
export function shown(text: string): string {
  return tongue() === 'en' ? text : (phrase(text) ?? text);
}

/** A line of the check of this machine. */
export function shownCheck({ name, finding, fix }: Check): {
  name: string;
  finding: string;
  fix: string | null;
} {
  return { name: shown(name), finding: shown(finding), fix: fix === null ? null : shown(fix) };
}

/** What a model is good for, one sentence. */
export function shownSummary(model: { id: string; summary: string }): string {
  return tongue() === 'en' ? model.summary : (summaries[model.id] ?? shown(model.summary));
}

function plain({ message, hint }: Pick<ErrorBody, 'message' | 'hint'>): ShownError {
  return hint === undefined ? { message } : { message, hint };
}

function translated({
  code,
  message,
  hint,
}: Pick<ErrorBody, 'message' | 'hint'> & { code?: ErrorCode }): ShownError {
  const known = phrase(message);
  const way = hint === undefined ? null : phrase(hint, true);
  // Without a code the words are the window's own, which speak its language already.
  const said: ShownError = { message: known ?? (code ? codes[code] : message) };
  if (way !== null) said.hint = way;
  else if (hint !== undefined && !code) said.hint = hint;
  const raw: string[] = [];
  if (known === null && code) raw.push(message);
  if (way === null && hint !== undefined && code) raw.push(hint);
  if (raw.length > 0) said.detail = raw.join(' · ');
  return said;
}
