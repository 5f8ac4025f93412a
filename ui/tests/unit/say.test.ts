// Every code that the program can say has its German sentence.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Cause, Ending, Saying } from '../../src/lib/api/types';
import { speak } from '../../src/lib/language.svelte';
import { asideSentence, entrySentence, resumeSentence, stateSentence } from '../../src/lib/say';
import { codes } from '../../src/lib/words/de-errors';
import * as words from '../../src/lib/words/de-say';
import { anyway, gamePaused, history } from '../fake/control';
import { snapshot } from '../fake/samples';

const types = readFileSync(join(import.meta.dirname, '../../src/lib/api/types.ts'), 'utf8');

/** The codes of an enum of the contract, as the program exports them. */
function codesOf(name: string, tag?: string): string[] {
  const declared = new RegExp(`^export type ${name} = ([\\s\\S]*?);$`, 'm').exec(types)?.[1] ?? '';
  const find = tag ? new RegExp(`"${tag}": "(\\w+)"`, 'g') : /"(\w+)"/g;
  return [...declared.matchAll(find)].map(([, code]) => code ?? '').sort();
}

describe('the German sentences', () => {
  it.each([
    ['Cause', 'cause', words.causes],
    ['Ending', 'end', words.endings],
    ['Saying', 'say', words.sayings],
    ['Lifted', 'rule', words.lifted],
    ['Preparing', 'what', words.preparing],
    ['MiningSaying', 'say', words.mining],
    ['SkipCount', 'why', words.skips],
    ['Strictness', undefined, words.strictness],
    ['ErrorCode', undefined, codes],
  ] as const)('are there for every code of %s', (name, tag, said) => {
    const all = codesOf(name, tag);
    expect(all.length).toBeGreaterThan(2);
    expect(Object.keys(said).sort()).toEqual(all);
  });

  it('tell how far a load is', () => {
    const said = (percent: number | null, warm_percent: number | null) =>
      words.preparing.loading({ what: 'loading', model: 'm', percent, warm_percent });
    expect(said(null, null)).toBe('lädt m');
    expect(said(40, null)).toBe('lädt m (40 %)');
    expect(said(100, 30)).toBe('richtet m für diesen Rechner ein (30 %)');
  });

  const causes: Cause[] = [
    { cause: 'crash' },
    { cause: 'game', program: 'doom', sign: 'full_screen' },
    { cause: 'game', program: 'doom', sign: 'card_load' },
    { cause: 'game', program: 'doom', sign: 'library' },
    { cause: 'cool_down', program: 'doom' },
    { cause: 'exclusive', program: 'blender', device: 'gpu' },
    { cause: 'exclusive', program: 'blender', device: 'cpu' },
    { cause: 'other_user' },
    { cause: 'battery' },
    { cause: 'hot', reached_c: 88, resume_c: 75 },
    { cause: 'in_use', minutes: 10 },
    { cause: 'away_unknown' },
    { cause: 'schedule', cheap_only: false },
    { cause: 'schedule', cheap_only: true },
    { cause: 'metered' },
  ];
  const endings: Ending[] = [
    { end: 'also', cause: { cause: 'battery' } },
    { end: 'checked' },
    { end: 'game_gone', after_secs: 0 },
    { end: 'game_gone', after_secs: 180 },
    { end: 'program_ends' },
    { end: 'own_session' },
    { end: 'mains' },
    { end: 'cooled', resume_c: 75 },
    { end: 'idle', minutes: 90 },
    { end: 'other_rule' },
    { end: 'no_hour' },
    { end: 'other_network' },
    { end: 'at', time: { day: 1, minute: 65 } },
    { end: 'unknown' },
  ];

  it('are sentences, whatever holds and however it ends', () => {
    const seen = new Set<string>();
    for (const cause of causes) {
      for (const end of endings) {
        const said: Saying = { say: 'held', how: 'paused', cause, end };
        const text = words.sayingWords(said);
        expect(text).toMatch(/^Pausiert: .+\.$/);
        expect(text).not.toMatch(/undefined|null|\b(the|is|you)\b/);
        seen.add(text);
      }
    }
    expect(seen.size).toBe(causes.length * endings.length);
    expect([...seen]).toContain('Pausiert: doom läuft. Weiter geht es 3 min nach seinem Ende.');
    expect([...seen]).toContain(
      'Pausiert: der Rechner läuft im Akkubetrieb. Weiter geht es Di, 01:05 Uhr.',
    );
  });
});

describe('what the window shows', () => {
  beforeEach(() => speak('german'));
  afterEach(() => {
    speak('system');
    localStorage.clear();
  });

  it('is German in every state', () => {
    const sentence = (...of: Parameters<typeof snapshot>) => stateSentence(snapshot(...of));
    expect(sentence('stopped')).toBe('Kein Mining. Drück auf Start, um Punkte zu verdienen.');
    expect(sentence('starting')).toBe('Macht sich bereit: lädt smollm2-135m-instruct.');
    expect(sentence('waiting')).toBe('Verbunden mit dem Übungsnetzwerk. Wartet auf einen Job.');
    expect(sentence('working')).toMatch(
      /^Arbeitet an einem Text-Job für das Übungsnetzwerk: 43 Token, 3,1 s von 180 s\.$/,
    );
    expect(sentence('finishing')).toMatch(/^Schließt den letzten Job ab und hält dann an: /);
    expect(sentence('paused')).toBe('Pausiert: doom läuft. Weiter geht es 3 min nach seinem Ende.');
    expect(sentence('needs_you')).toMatch(/^Wegen eines Problems angehalten: Die Datei/);
  });

  it('says why there is no job', () => {
    const said = words.noJobWords({
      waiting: 6,
      reasons: [
        { jobs: 3, why: 'model', model: 'sdxl' },
        { jobs: 1, why: 'memory', memory_bytes: 24 * 1024 ** 3 },
        { jobs: 1, why: 'failed' },
      ],
    });
    expect(said).toBe(
      'Kein Job: 3 brauchen sdxl, 1 braucht 24,0 GB, 1 ist hier schon gescheitert, 1 weiterer braucht etwas anderes.',
    );
  });

  it('says what a choice sets aside, and keeps old entries of the history as they are', () => {
    expect(asideSentence(anyway)).toBe(
      'Deine Wahl übergeht deinen Zeitplan, bis du wieder deinen Regeln folgst.',
    );
    expect(resumeSentence(gamePaused)).toBe(
      'Startet sofort wieder und übergeht den Spielschutz für doom, bis es beendet ist.',
    );
    const entries = history(0).map(entrySentence);
    expect(entries[0]).toContain('doom läuft');
    expect(entries.at(-1)).toBe('Not mining. Press Start to earn points.');
    speak('english');
    expect(history(0).map(entrySentence)[0]).toContain('doom is running');
  });
});
