// The network's lists, read in the window, and the signed catalogue.

import { fireEvent, screen, within } from '@testing-library/svelte';
import axe from 'axe-core';
import { afterEach, describe, expect, it } from 'vitest';

import type { LibraryStatus } from '../../src/lib/api/types';
import { speak } from '../../src/lib/language.svelte';
import { listsView, PLACES, readLists, report, signedCatalogue } from '../fake/catalogue';
import { library, snapshot } from '../fake/samples';
import { open, settle } from './render';

afterEach(() => {
  speak('system');
  localStorage.clear();
});

function withLibrary(changes: Partial<LibraryStatus>) {
  return snapshot('stopped', { library: { ...library, ...changes } });
}

async function press(id: string): Promise<void> {
  await fireEvent.click(screen.getByTestId(id));
  await settle();
}

async function violations(): Promise<string[]> {
  const rules = { 'color-contrast': { enabled: false } };
  const found = await axe.run(document.body, { rules });
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((n) => n.html).join(' ')}`);
}

const failed = {
  task: 'lists',
  sentence: null,
  problem: {
    code: 'invalid_request',
    message: 'the list of models cannot be used: it has more than 8 MB',
    hint: 'Check the address; or save the list with your browser, and choose that file.',
  },
} as const;

describe("the network's lists", () => {
  it('are asked for by address or file, read, and what became of them is told', async () => {
    const { backend, emit } = await open(snapshot('stopped'), 'models');
    await press('lists-open');
    const go = () => screen.getByTestId<HTMLButtonElement>('lists-go');
    expect(go().disabled).toBe(true);
    const field = (name: string) => screen.getByTestId<HTMLInputElement>(`lists-${name}`);
    expect(document.activeElement).toBe(field('models'));
    // Three fields, three buttons, and each says what it is for.
    expect(screen.getByLabelText('List of autoencoders')).toBe(field('vae'));
    expect(screen.getByRole('button', { name: 'Choose a file: List of LoRAs' })).toBeTruthy();
    expect(await violations()).toEqual([]);
    await fireEvent.input(field('models'), { target: { value: PLACES.models } });
    await fireEvent.input(field('vae'), { target: { value: PLACES.vae } });
    await press('lists-go');
    expect(backend.sent('catalogue').map((command) => command.payload)).toEqual([
      { ask: 'look' },
      { ask: 'read_lists', places: PLACES },
    ]);

    const asked = { done: 12, total: 40 };
    const activity = { task: 'lists' as const, done_bytes: 0, total_bytes: 0, asked };
    emit({ event: 'snapshot', payload: withLibrary({ activity }) });
    await settle();
    expect(screen.getByTestId('lists-progress').textContent).toContain('12 of 40');
    expect(await violations()).toEqual([]);
    await press('lists-stop');
    expect(backend.sent('library')[0]?.payload).toEqual({ action: 'stop_task' });

    backend.lists = listsView({ places: PLACES, report });
    emit({ event: 'snapshot', payload: withLibrary({ outcome: readLists }) });
    await settle();
    const told = screen.getByTestId('lists-report').textContent;
    for (const words of [
      '2 models were added.',
      'One was known already.',
      'Dreamer, Pastel-XL',
      'Dreamer: steps 50 becomes 35',
      '3 entries were left out',
      'hermes-3-llama3.1-8b, openhermes-mixtral-8x7b-gptq',
      'so nothing could check it',
    ]) {
      expect(told).toContain(words);
    }
    // The same reason is told once.
    expect(told.split('language models').length).toBe(2);
    expect(await violations()).toEqual([]);
    await press('lists-again');
    expect(field('models').value).toBe(PLACES.models);
  });

  it('that were refused leave the form as it was', async () => {
    const { backend } = await open(snapshot('stopped'), 'models');
    await press('lists-open');
    const field = screen.getByTestId<HTMLInputElement>('lists-models');
    await fireEvent.input(field, { target: { value: 'models.json' } });
    backend.refusals.set('catalogue', {
      code: 'invalid_request',
      message: 'the list of models needs an https address or the whole path of a file',
      hint: 'give its https address, or choose the file of the list',
    });
    await press('lists-go');
    const problem = within(screen.getByTestId('lists-dialog')).getByTestId('problem-card');
    expect(problem.textContent).toContain('The list of models needs an https address');
    expect(field.value).toBe('models.json');
    expect(screen.getByTestId<HTMLButtonElement>('lists-go').disabled).toBe(false);
  });

  it('go on behind the closed dialog, and the page tells how they ended', async () => {
    const activity = { task: 'lists' as const, done_bytes: 0, total_bytes: 0, asked: null };
    const { backend, emit } = await open(withLibrary({ activity }), 'models');
    expect(screen.getAllByTestId('library-task')).toHaveLength(1);
    expect(screen.getByText("Reading the network's lists")).toBeTruthy();
    emit({ event: 'snapshot', payload: withLibrary({ outcome: failed }) });
    expect(screen.getByText(/It has more than 8 MB|it has more than 8 MB/)).toBeTruthy();
    backend.lists = listsView({ places: PLACES, report });
    emit({ event: 'snapshot', payload: withLibrary({ outcome: readLists }) });
    await press('task-more');
    expect(screen.getByTestId('lists-report')).toBeTruthy();
  });

  it('that name nothing of use say so', async () => {
    const { backend } = await open(withLibrary({ outcome: readLists }), 'models');
    const nothing = { added: [], known: [], changed: [], left_out: [] };
    backend.lists = listsView({ places: PLACES, report: nothing });
    await press('lists-open');
    expect(screen.getByTestId('lists-report').textContent).toContain('no model that is new');
  });

  it('speak German', async () => {
    localStorage.setItem('language', 'german');
    const { backend, session } = await open(withLibrary({ outcome: readLists }), 'models');
    await session.setPreferences({ language: 'german' });
    backend.lists = listsView({ places: PLACES, report });
    await press('lists-open');
    const told = screen.getByTestId('lists-report').textContent;
    for (const words of [
      '2 Modelle kamen hinzu.',
      'Schritte 50 wird zu 35',
      'Die Listen nennen keine SHA-256 für die Dateien von Sprachmodellen',
      'Die Liste hat keine SHA-256 für bare.safetensors',
    ]) {
      expect(told).toContain(words);
    }
    expect(told).not.toMatch(/\b(the|list|becomes|nothing)\b/);
  });
});

describe('the signed catalogue', () => {
  it('says its date, when it was looked for, and is looked for when asked', async () => {
    const { backend, emit } = await open(withLibrary({ catalogue: signedCatalogue }), 'models');
    const line = () => screen.getByTestId('catalogue').textContent;
    expect(line()).toMatch(/Catalogue of (3 June|June 3,) 2026, version 7\./);
    expect(line()).toContain('Looked for a newer catalogue:');
    await press('catalogue-look');
    expect(backend.sent('catalogue').map((command) => command.payload)).toEqual([{ ask: 'check' }]);
    const looking = { ...signedCatalogue, looking: true };
    emit({ event: 'snapshot', payload: withLibrary({ catalogue: looking }) });
    expect(screen.getByTestId<HTMLButtonElement>('catalogue-look').disabled).toBe(true);
    const problem = {
      code: 'model_not_ready' as const,
      message: 'the catalogue is refused: it is version 2, and version 7 was here',
    };
    emit({
      event: 'snapshot',
      payload: withLibrary({ catalogue: { ...signedCatalogue, problem } }),
    });
    expect(screen.getByText(/version 7 was here/)).toBeTruthy();
    expect(await violations()).toEqual([]);
  });

  it('is honest where a build looks for none', async () => {
    await open(snapshot('stopped'), 'models');
    const line = screen.getByTestId('catalogue').textContent;
    expect(line).toContain('The models of this version of Neurino.');
    expect(line).toContain('This version looks for no newer catalogue.');
    expect(screen.queryByTestId('catalogue-look')).toBeNull();
  });
});
