// A person's own model in the window, and where everything lies.

import { fireEvent, screen } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { OWN_PATH } from '../fake/own';
import { library, snapshot } from '../fake/samples';
import { open, settle } from './render';

async function press(id: string): Promise<void> {
  await fireEvent.click(screen.getByTestId(id));
  await settle();
}

describe('an own model', () => {
  it('is chosen, looked at, named and added', async () => {
    const { backend } = await open(snapshot('stopped'), 'models');
    await press('own-open');
    expect((screen.getByTestId('own-go') as HTMLButtonElement).disabled).toBe(true);
    await press('choose-file');
    const facts = screen.getByTestId('own-facts').textContent;
    for (const word of [OWN_PATH, 'llama, q4_k', '131,072 tokens', '7.5 GB', 'Unknown', 'Runs']) {
      expect(facts).toContain(word);
    }
    const name = screen.getByTestId('own-id') as HTMLInputElement;
    expect(name.value).toBe('mistral-nemo-instruct-2407-q4_k_m');
    await fireEvent.input(name, { target: { value: 'nemo' } });
    await press('own-go');
    expect(backend.sent('own_model').map((command) => command.payload)).toEqual([
      { do: 'look', path: OWN_PATH },
      { do: 'add', path: OWN_PATH, id: 'nemo' },
    ]);
    expect(screen.queryByTestId('own-dialog')).toBeNull();
  });

  it('that is none is refused with a way out, and another can be chosen', async () => {
    const { backend } = await open(snapshot('stopped'), 'models');
    backend.refusals.set('own_model', {
      code: 'invalid_request',
      message: 'that is no model: it is a LoRA',
      hint: 'choose a GGUF file',
    });
    await press('own-open');
    await press('choose-file');
    expect(screen.getByText('That is no model: it is a LoRA.')).toBeTruthy();
    await press('own-go');
    expect(screen.getByTestId('own-facts')).toBeTruthy();
  });

  it('shows its progress above the models', async () => {
    const activity = { task: 'add' as const, done_bytes: 2e9, total_bytes: 7e9, asked: null };
    await open(snapshot('stopped', { library: { ...library, activity } }), 'models');
    expect(screen.getAllByTestId('library-task')).toHaveLength(1);
    expect(screen.getByText('Adding your model')).toBeTruthy();
  });
});

describe('the files on this machine', () => {
  it('are listed with their sizes', async () => {
    await open(snapshot('stopped'), 'settings');
    await settle();
    const card = screen.getByTestId('data').textContent;
    for (const word of ['64.8 GB', '/home/ada/.config/neurino', 'Empty', 'Together']) {
      expect(card).toContain(word);
    }
  });
});
