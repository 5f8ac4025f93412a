import { fireEvent, screen, within } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import type { Snapshot } from '../../src/lib/api/types';
import { speak } from '../../src/lib/language.svelte';
import { rigs } from '../fake/cards';
import { cpu, snapshot } from '../fake/samples';
import { open, settle } from './render';

const rig = (name: string): Snapshot => rigs[name]?.() ?? snapshot('working');

describe('the cards in the settings', () => {
  it('are switched, given work and named one by one', async () => {
    const { backend } = await open(rig('two'), 'settings');
    const rows = screen.getAllByTestId('card-row');
    expect(rows).toHaveLength(2);
    const [first, last] = rows as [HTMLElement, HTMLElement];
    expect(within(last).getByTestId('card-state').textContent).toBe('In use');
    await fireEvent.click(within(last).getByTestId('card-use'));
    await fireEvent.click(within(first).getByLabelText('Pictures'));
    const name = within(first).getByTestId<HTMLInputElement>('card-name');
    name.value = '  The loud one ';
    await fireEvent.change(name);
    await settle();
    expect(backend.sent('card_choose').map((sent) => sent.payload)).toEqual([
      { card: 'GPU-2', choice: { use: false, role: 'both' } },
      { card: 'GPU-1', choice: { use: true, role: 'pictures' } },
      // Though no snapshot has shown the role yet.
      { card: 'GPU-1', choice: { use: true, role: 'pictures', name: 'The loud one' } },
    ]);
  });

  it('say where they stand, and one that is off has no work to choose', async () => {
    await open(rig('named'), 'settings');
    const [named, off] = screen.getAllByTestId('card-row') as [HTMLElement, HTMLElement];
    expect(named.textContent).toContain('NVIDIA GeForce RTX 4090');
    expect(within(off).getByTestId('card-state').textContent).toBe('Not used');
    expect(within(off).getByTestId('card-note').textContent).toContain('Switched off');
    expect(within(off).queryByRole('radiogroup')).toBeNull();
  });

  it('take their name away when the field is emptied', async () => {
    const { backend } = await open(rig('named'), 'settings');
    const [field] = screen.getAllByTestId<HTMLInputElement>('card-name');
    if (!field) throw new Error('no field');
    field.value = '';
    await fireEvent.change(field);
    await settle();
    const sent = backend.sent('card_choose').map((one) => one.payload);
    expect(sent).toEqual([{ card: 'GPU-1', choice: { use: true, role: 'pictures' } }]);
  });

  it('tell why a choice was not taken', async () => {
    const { backend } = await open(rig('two'), 'settings');
    backend.refusals.set('card_choose', {
      code: 'invalid_request',
      message: "A card's name has up to 40 letters in one line.",
      hint: 'Nothing was changed.',
    });
    const [field] = screen.getAllByTestId<HTMLInputElement>('card-name');
    if (!field) throw new Error('no field');
    field.value = 'x'.repeat(41);
    await fireEvent.change(field);
    await settle();
    expect(screen.getByTestId('cards').textContent).toContain('up to 40 letters');
    expect(field.value).toBe('');
  });

  it('are the processor where there is none, and nothing where it has no choice', async () => {
    const { emit } = await open(snapshot('working', { devices: [cpu] }), 'settings');
    expect(screen.getByTestId('cards').textContent).toContain('Use the processor');
    emit({
      event: 'snapshot',
      payload: snapshot('working', { devices: [{ ...cpu, choice: null }] }),
    });
    expect(screen.queryByTestId('cards')).toBeNull();
  });
});

describe('no card', () => {
  it('is said with the way out, in both languages', async () => {
    await open(rig('alloff'));
    const sentence = screen.getByTestId('state-sentence');
    expect(sentence.textContent).toContain('All cards are switched off. Switch one on');
    await fireEvent.click(screen.getByTestId('choose-cards'));
    await settle();
    expect(document.activeElement).toBe(screen.getByTestId('cards'));
    await fireEvent.click(screen.getByRole('button', { name: 'Home' }));
    speak('german');
    await settle();
    expect(screen.getByTestId('state-sentence').textContent).toContain(
      'Alle Karten sind ausgeschaltet. Schalte eine',
    );
    speak('english');
  });

  it('that is gone is looked for', async () => {
    await open(rig('gone'));
    expect(screen.getByTestId('state-sentence').textContent).toContain('mining goes on by itself');
    expect(screen.getByTestId('device-card').textContent).toContain('Neurino looks for it');
  });
});
