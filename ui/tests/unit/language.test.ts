// The German catalogue beside the English one: same keys, same parameters, and really German.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterEach, describe, expect, it } from 'vitest';

import { against, elapsed, fileSize, percent, points, span, when } from '../../src/lib/format';
import { locale, speak, t, tongue } from '../../src/lib/language.svelte';
import { en } from '../../src/lib/strings';
import { de } from '../../src/lib/words/de';
import { summaries } from '../../src/lib/words/de-errors';

type Leaf = string | ((...values: never[]) => string);

/** Every word of a catalogue by its place. */
function leaves(words: unknown, place = ''): Map<string, Leaf> {
  if (typeof words === 'string' || typeof words === 'function') {
    return new Map([[place, words as Leaf]]);
  }
  const found = new Map<string, Leaf>();
  for (const [key, value] of Object.entries(words as object)) {
    for (const [at, leaf] of leaves(value, place === '' ? key : `${place}.${key}`)) {
      found.set(at, leaf);
    }
  }
  return found;
}

/** What goes in: one that no sentence holds by itself, and that tells its place. */
const marks = ['@one', '@two', '@three', '@four', '@five'] as const;

/** Words that take other things than texts and numbers. */
const special: Record<string, [unknown[], string[]]> = {
  'job.beside': [[2], ['2']],
  'job.words': [
    ['text', 42, 43, '@four'],
    ['42', '@four'],
  ],
  'income.cause': [['job_size', true], []],
  'power.watts': [[200], ['200']],
};

function rendered(place: string, leaf: Leaf): string {
  if (typeof leaf === 'string') return leaf;
  const values = special[place]?.[0] ?? marks.slice(0, leaf.length);
  return (leaf as (...values: unknown[]) => string)(...values);
}

const english = leaves(en);
const german = leaves(de);

/** The same in both languages. */
const shared = new Set([
  'app',
  'earnings.gained',
  'library.speed',
  'cards.name',
  'cards.roles.text',
  'device.degrees',
  'device.watts',
  'power.watts',
  'income.exportAs',
  'playground.kinds.text',
  'models.kinds.text',
  'library.queue',
  'receipt.job',
  'income.kwh',
  'income.perKwh',
  'income.weekOf',
  'wallet.title',
  'wallet.staked',
  'wallet.factor',
  'wallet.boostStep',
  'wallet.rewardPlaceholder',
  'models.wordFor',
  'settings.languages.english',
  'settings.languages.german',
  'settings.version',
  'mining.start',
  'income.view.jobs',
  'income.exports.jobs',
  'income.jobsHead',
  'income.kinds.llama',
  'income.kinds.waifu',
  'library.pause',
  'control.pause',
  'control.rules.daysShort.5',
  'library.folderIs',
  'library.pauseFor',
  'chat.models',
  'control.rules.daysShort.0',
  'control.rules.daysShort.4',
  'help.levels.info',
  // Our own image model was taught English.
  'picture.examples.0',
  'picture.examples.1',
  'picture.examples.2',
]);

/** Little words that German never has, apart from quoted commands and names. */
const ENGLISH =
  /\b(the|and|of|with|your|you|this|that|is|are|not|for|from|when|which|has|have|will|can|it|its|by|or|at|as|points|model|models|graphics|card|network|settings|earned|mining is)\b/i;

describe('the German catalogue', () => {
  it('has the keys of the English one', () => {
    expect([...german.keys()]).toEqual([...english.keys()]);
  });

  it.each([...english.keys()])('%s is whole, and German', (place) => {
    const [of, to] = [english.get(place), german.get(place)];
    if (of === undefined || to === undefined) throw new Error(`${place} is missing`);
    const [before, after] = [rendered(place, of), rendered(place, to)];
    expect(after.trim()).not.toBe('');
    if (!shared.has(place)) expect(after).not.toBe(before);
    const inBoth = special[place]?.[1] ?? marks.filter((mark) => before.includes(mark));
    for (const mark of inBoth) expect(after).toContain(mark);
    const words = after
      .replace(/`[^`]*`/g, '')
      .replace(/@\w+/g, '')
      .replace(/\b(Snapshot|Playground)\b/g, '');
    if (!shared.has(place) && !place.startsWith('picture.examples')) {
      expect(words).not.toMatch(ENGLISH);
    }
    // The person is addressed as "du": no polite form within a sentence.
    expect(words).not.toMatch(/[a-zäöüß,] (Sie|Ihre[nrms]?|Ihnen)\b/);
  });

  it('counts in both numbers', () => {
    expect(de.wallet.minerModels(1, '2 GB', 'x')).toContain('1 Modelldatei,');
    expect(de.wallet.minerModels(2, '2 GB', 'x')).toContain('2 Modelldateien,');
    expect(de.income.jobs('1')).toBe('1 Job');
    expect(de.income.jobs('2')).toBe('2 Jobs');
    expect(de.library.usedDays(1)).toBe('Gestern');
    expect(de.income.pending(1, 'x')).toContain('1 Ergebnis wartet');
    expect(de.guide.minutes(1)).toBe('1 Minute');
  });

  it('has a summary of every model of the catalogue', () => {
    const folder = join(import.meta.dirname, '../../../models');
    const manifests = readdirSync(folder).filter((name) => name.endsWith('.toml'));
    expect(manifests.length).toBeGreaterThan(0);
    for (const name of manifests) {
      const id = /^id = "([^"]+)"/m.exec(readFileSync(join(folder, name), 'utf8'))?.[1];
      expect(summaries[id ?? name]).toBeTruthy();
    }
  });
});

describe('the language shown', () => {
  afterEach(() => {
    speak('system');
    localStorage.clear();
  });

  it('changes words, numbers, dates and the document at once', () => {
    expect([tongue(), t.nav.settings, points(1_234_500_000)]).toEqual([
      'en',
      'Settings',
      '1,234.500',
    ]);
    speak('german');
    expect(document.documentElement.lang).toBe('de');
    expect([tongue(), locale(), t.nav.settings]).toEqual(['de', 'de-DE', 'Einstellungen']);
    expect(points(1_234_500_000, 1)).toBe('1.234,5');
    expect(elapsed(3149)).toBe('3,1 s');
    expect(elapsed(0)).toBe('<0,1 s');
    expect(against(3149, 180_000)).toBe('3,1 s von 180 s');
    expect(fileSize(92_100_000)).toBe('92,1 MB');
    expect(percent(0.5)).toBe('50\u00a0%');
    expect(span(3 * 86_400_000)).toBe('3 Tg. 0 h');
    const noon = new Date(2026, 10, 22, 12).getTime();
    expect(when(noon, noon + 86_400_000)).toBe('22. Nov., 12:00:00');
    speak('english');
    expect([document.documentElement.lang, t.nav.settings]).toEqual(['en', 'Settings']);
  });

  it('is remembered for the next window, and the system again once it is chosen', () => {
    speak('german');
    speak(null);
    expect(tongue()).toBe('de');
    speak('system');
    speak(null);
    expect(tongue()).toBe('en');
  });
});
