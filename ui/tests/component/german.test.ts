// The whole window in German: no English word of the catalogue is left on any page.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { speak, t } from '../../src/lib/language.svelte';
import { en } from '../../src/lib/strings';
import { de } from '../../src/lib/words/de';
import type { Page } from '../../src/views/pages';
import { snapshot } from '../fake/samples';
import { open, settle } from './render';

/** English words of more than one word, that German does not have. */
function sentences(words: unknown, beside: unknown): string[] {
  if (typeof words === 'string') return words.includes(' ') && words !== beside ? [words] : [];
  if (typeof words !== 'object' || words === null) return [];
  return Object.entries(words).flatMap(([key, value]) =>
    sentences(value, (beside as Record<string, unknown>)[key]),
  );
}

/** Everything a person reads or hears. */
function read(): string {
  const named = [...document.querySelectorAll('[aria-label], [title], [placeholder]')].flatMap(
    (one) => ['aria-label', 'title', 'placeholder'].map((name) => one.getAttribute(name) ?? ''),
  );
  return [document.body.textContent ?? '', ...named].join('\n');
}

const pages: Page[] = ['home', 'earnings', 'playground', 'models', 'settings'];

describe('the window in German', () => {
  beforeEach(() => localStorage.setItem('language', 'german'));
  afterEach(() => {
    speak('system');
    localStorage.clear();
  });

  it.each(pages)('has no English left on %s', async (page) => {
    const { session } = await open(snapshot('working'), page);
    await session.setPreferences({ language: 'german' });
    if (page === 'earnings') await session.ledger.refresh();
    if (page === 'settings') await session.runDoctor();
    await settle();
    const text = read();
    expect(text).toContain(t.nav.settings);
    const left = sentences(en, de).filter((words) => text.includes(words));
    expect(left).toEqual([]);
  });

  it('turns English while it is open', async () => {
    const { session } = await open(snapshot('paused'), 'settings');
    await session.setPreferences({ language: 'german' });
    await settle();
    expect(read()).toContain('Wann darf Neurino minen?');
    await session.setPreferences({ language: 'english' });
    await settle();
    expect(read()).toContain('When may Neurino mine?');
    const left = sentences(de, en).filter((words) => read().includes(words));
    expect(left).toEqual([]);
  });
});
