// What the network wants of a model and what it brings, at the choice.

import { screen, within } from '@testing-library/svelte';
import { afterEach, describe, expect, it } from 'vitest';

import type { LibraryModel, Snapshot } from '../../src/lib/api/types';
import { speak } from '../../src/lib/language.svelte';
import { rough, wanted } from '../../src/features/models/demand';
import { asked, library, models, snapshot } from '../fake/samples';
import { guideView } from '../fake/wallet';
import { open, settle } from './render';

afterEach(() => {
  speak('system');
  localStorage.clear();
});

function withWorth(changes: readonly (Partial<LibraryModel> | undefined)[]): Snapshot {
  const known = library.models.map((model, n) => ({ ...model, ...changes[n] }));
  return snapshot('stopped', { library: { ...library, models: known } });
}

function row(n: number) {
  const found = screen.getAllByTestId('model-row')[n];
  if (!found) throw new Error('a row for each model');
  const words = (id: string) => within(found).queryByTestId(id)?.textContent.trim() ?? null;
  return { demand: words('model-demand'), estimate: words('model-estimate') };
}

describe('at the choice of a model', () => {
  it('points an hour stand with where they come from, and demand with its numbers', async () => {
    await open(withWorth(asked), 'models');
    expect(row(0)).toEqual({
      estimate: 'About 12.4 Llama points an hour of work, from your last 37 jobs with it',
      demand: 'Wanted · 3 jobs wait · 1,284 jobs in the last hour · 41 machines serve it',
    });
    expect(row(1)).toEqual({
      estimate: 'About 48.1 Waifu points an hour, what machines with it got on average',
      demand: 'Much wanted · 12 jobs wait · 96 jobs in the last hour · 4 machines serve it',
    });
    expect(row(2)).toEqual({ estimate: null, demand: 'Hardly wanted now · 2 machines serve it' });
    const lately = 'Wanted · 1 job in the last 23 min · 1 machine serves it';
    expect(row(3)).toEqual({ estimate: null, demand: lately });
    const alone = 'Much wanted · 1 job waits · no machine serves it';
    expect(row(4)).toEqual({ estimate: null, demand: alone });
  });

  it('the same stands there in German', async () => {
    const { session } = await open(withWorth(asked), 'models');
    await session.setPreferences({ language: 'german' });
    await settle();
    expect(row(0)).toEqual({
      estimate: 'Etwa 12,4 Llama-Punkte je Arbeitsstunde, aus deinen letzten 37 Jobs damit',
      demand:
        'Gefragt · 3 Jobs warten · 1.284 Jobs in der letzten Stunde · 41 Rechner bieten es an',
    });
    expect(row(3).demand).toBe('Gefragt · 1 Job in den letzten 23 min · 1 Rechner bietet es an');
  });

  it('there is nothing where nothing is known', async () => {
    await open(withWorth([]), 'models');
    for (let n = 0; n < models.length; n += 1) {
      expect(row(n)).toEqual({ demand: null, estimate: null });
    }
  });

  it('the guide shows the same of the first models', async () => {
    const { backend, session } = await open(withWorth(asked));
    backend.guide = guideView({ open: true, step: 'models' });
    await session.wallet.connect();
    await settle();
    const [first] = screen.getAllByTestId('first-model');
    if (!first) throw new Error('a first model');
    expect(within(first).getByTestId('model-demand').textContent).toContain('3 jobs wait');
    expect(within(first).getByTestId('model-estimate').textContent).toContain('12.4 Llama points');
  });
});

describe('the words', () => {
  const none = { model: 'm', minutes: 60, jobs: 0, waiting: 0, nodes: 0 };
  const quiet = { ...none, points_per_node_hour_micro: null };

  it('do not call a model unwanted before anybody could want it', () => {
    expect(wanted({ ...quiet, minutes: 9 })).toBeNull();
    expect(wanted({ ...quiet, minutes: 10 })).toBe('none');
    expect(wanted({ ...quiet, minutes: 0, waiting: 1, nodes: 1 })).toBe('some');
    expect(wanted({ ...quiet, minutes: 0, waiting: 2, nodes: 1 })).toBe('high');
  });

  it('show three digits of an amount, never more than it is', () => {
    const shown = [0, 4_321, 54_321, 1_239_999, 12_399_999, 1_239_999_999].map(rough);
    expect(shown).toEqual(['0', '0.004321', '0.054', '1.23', '12.3', '1,239']);
  });
});
