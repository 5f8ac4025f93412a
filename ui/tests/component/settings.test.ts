import { fireEvent, screen } from '@testing-library/svelte';
import axe from 'axe-core';
import { afterEach, describe, expect, it } from 'vitest';

import { speak } from '../../src/lib/language.svelte';
import { guideView } from '../fake/wallet';
import { snapshot } from '../fake/samples';
import { open, settle } from './render';

afterEach(() => {
  localStorage.clear();
  speak('english');
});

/** Names of the cards that a search leaves. */
function left(): string[] {
  const cards = [...document.querySelectorAll('section.card[data-found] h2')];
  return cards.map((card) => card.textContent?.trim() ?? '');
}

async function find(words: string) {
  await fireEvent.input(screen.getByTestId('settings-find'), { target: { value: words } });
  await settle();
}

describe('the search of the settings', () => {
  it('leaves the cards that say the words, and marks the row', async () => {
    await open(snapshot('stopped'), 'settings');
    await find('closing WINDOW');
    expect(left()).toContain('Appearance');
    const marked = document.querySelector('section[aria-labelledby="look-title"] [data-hit]');
    expect(marked?.querySelector('select')?.dataset['testid']).toBe('close-select');
    await find('gateway');
    expect(left()).not.toContain('Appearance');
    await find('zzz');
    expect(left()).toEqual([]);
    expect(document.body.textContent).toContain('No setting says “zzz”.');
    await fireEvent.keyDown(screen.getByTestId('settings-find'), { key: 'Escape' });
    await settle();
    expect(document.querySelector('.searching')).toBeNull();
  });

  it('knows German, with and without its dots', async () => {
    await open(snapshot('stopped'), 'settings');
    speak('german');
    await settle();
    await find('schließen');
    const found = left();
    expect(found).toContain('Aussehen');
    await find('schliessen');
    expect(left()).toEqual(found);
  });

  it('is usable by a screen reader', async () => {
    await open(snapshot('stopped'), 'settings');
    await find('window');
    const report = await axe.run(document.body, {
      rules: { 'color-contrast': { enabled: false } },
    });
    expect(report.violations.map((one) => one.id)).toEqual([]);
  });
});

describe('advanced settings', () => {
  it('are folded away, found by a search, and stay open once opened', async () => {
    const { unmount } = await open(snapshot('stopped'), 'settings');
    const simple = () => document.querySelector('.cards')?.classList.contains('simple');
    expect(document.querySelectorAll('[data-advanced]').length).toBeGreaterThan(2);
    expect(simple()).toBe(true);
    await find('gateway');
    expect(simple()).toBe(false);
    await find('');
    await fireEvent.click(screen.getByTestId('settings-advanced'));
    expect(simple()).toBe(false);
    unmount();
    await open(snapshot('stopped'), 'settings');
    expect(simple()).toBe(false);
  });
});

describe('starting with the computer', () => {
  it('is a switch that says why it stays where it was', async () => {
    const { backend, session } = await open(snapshot('stopped'), 'settings');
    session.wallet.guide = guideView({ at_login: false });
    await settle();
    const box = () => screen.getByTestId<HTMLInputElement>('settings-at-login');
    backend.refusals.set('onboarding', { code: 'internal', message: 'the folder is read-only' });
    await fireEvent.click(box());
    await settle();
    expect(box().checked).toBe(false);
    expect(document.body.textContent).toContain('The folder is read-only');
    await fireEvent.click(box());
    await settle();
    expect(box().checked).toBe(true);
    expect(document.body.textContent).not.toContain('The folder is read-only');
  });

  it('is not offered where the system has no way for it', async () => {
    const { session } = await open(snapshot('stopped'), 'settings');
    session.wallet.guide = guideView({ at_login: null });
    await settle();
    expect(screen.queryByTestId('settings-at-login')).toBeNull();
  });
});
