import { fireEvent, screen } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { snapshot } from '../fake/samples';
import { open, settle } from './render';

describe('the content filter', () => {
  it('is off, says so, and takes words', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await settle();
    const card = screen.getByTestId('filter');
    const state = () => screen.getByTestId('filter-state').textContent;
    expect(card.hasAttribute('data-advanced')).toBe(true);
    expect(screen.getByTestId<HTMLInputElement>('filter-on').checked).toBe(false);
    expect(state()).toContain('Off');
    await fireEvent.click(screen.getByTestId('filter-on'));
    await settle();
    expect(backend.filter).toEqual({ on: true, words: [] });
    expect(state()).toContain('Add a word');
    const input = screen.getByLabelText('Another word or phrase');
    for (const word of ['gore', 'severed head']) {
      await fireEvent.input(input, { target: { value: word } });
      await fireEvent.submit(input.closest('form') as HTMLFormElement);
      await settle();
    }
    expect(backend.filter).toEqual({ on: true, words: ['gore', 'severed head'] });
    expect(state()).toContain('these 2 entries');
    await fireEvent.click(screen.getByLabelText('Remove gore'));
    await settle();
    expect(backend.filter.words).toEqual(['severed head']);
    expect(state()).toContain('this word');
  });

  it('stands where it stood when a change is refused', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await settle();
    const message = 'A word needs a letter or a digit.';
    backend.refusals.set('filter', { code: 'invalid_request', message });
    await fireEvent.click(screen.getByTestId('filter-on'));
    await settle();
    expect(screen.getByTestId('filter').textContent).toContain(message);
    expect(screen.getByTestId<HTMLInputElement>('filter-on').checked).toBe(false);
    expect(backend.filter.on).toBe(false);
  });
});
