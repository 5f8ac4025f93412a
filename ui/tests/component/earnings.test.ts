import { fireEvent, screen, within } from '@testing-library/svelte';
import axe from 'axe-core';
import { describe, expect, it } from 'vitest';

import type { EarningsView } from '../../src/features/earnings/ledger.svelte';
import type { EarningsOverview } from '../../src/lib/api/types';
import { nothing, overview, troubled } from '../fake/ledger';
import { noPoints, receipt, snapshot } from '../fake/samples';
import { open, settle } from './render';

const both = {
  points: {
    llama_today: 1_734_567,
    llama_total: 123_154_257,
    waifu_today: 412_500,
    waifu_total: 29_287_500,
    jobs_today: 23,
    jobs_total: 1633,
  },
};

async function earnings(told: EarningsOverview = overview, state = snapshot('working', both)) {
  const opened = await open(state, 'home');
  opened.backend.overview = told;
  await fireEvent.click(screen.getByTestId('nav-earnings'));
  await settle();
  await settle();
  return opened;
}

async function choose(view: EarningsView) {
  await fireEvent.click(within(screen.getByTestId(`earnings-view-${view}`)).getByRole('radio'));
  await settle();
  await settle();
}

describe('the cards', () => {
  it('tell both kinds apart, what is confirmed and what is pending', async () => {
    await earnings();
    const today = screen.getByTestId('card-today').textContent;
    expect(today).toMatch(/1\.734\s*Llama\s*0\.412\s*Waifu\s*23 jobs/);
    expect(screen.getByTestId('card-now').textContent).toMatch(/0\.312\s+Llama/);
    expect(screen.getByTestId('card-hours').textContent).toContain('497 h');
    expect(screen.getByTestId('pending').textContent).toContain('2 results wait');
    expect(screen.getByTestId('projection').textContent).toContain('7.4');
  });

  it('say estimating, and never 0, until there is a rate', async () => {
    await earnings(troubled);
    expect(screen.getByTestId('card-now').textContent).toContain('estimating…');
    expect(screen.getByTestId('projection').textContent).toContain('needs 3 min more');
    expect(screen.getByTestId('energy-table').textContent).toContain('≈');
  });

  it('tell how closely the network checks, and nothing where it does not say', async () => {
    await earnings();
    const watched = screen.getByTestId('trust').textContent;
    expect(watched).toContain('about 1 in 24 results');
    expect(watched).toContain('24 results in a row');
    expect(watched).toMatch(/7\.4499 points of the last 7 days/);
    document.body.innerHTML = '';
    await earnings(troubled);
    expect(screen.getByTestId('trust').textContent).toContain('No more work');
    document.body.innerHTML = '';
    await earnings({ ...overview, trust: null });
    expect(screen.queryByTestId('trust')).toBeNull();
  });

  it('say how to begin where nothing was earned', async () => {
    await earnings(nothing, snapshot('stopped', noPoints));
    expect(screen.getByTestId('card-now').textContent).toContain('not mining');
    expect(screen.getByTestId('earnings-empty').textContent).toContain('Press Start');
    expect(screen.getByTestId('why-line').textContent).toContain('two days');
  });

  it('explain a change by its causes', async () => {
    await earnings();
    const why = screen.getByTestId('why-line').textContent;
    expect(why).toContain('Llama: 0.575 points less than the day before (−25%)');
    expect(why).toContain('less time mined');
    expect(why).toMatch(/−0\.513\d* points/);
    expect(why).toContain('Waifu: 0.412 points, and none the day before.');
  });
});

describe('alarms', () => {
  it('lead to the receipts that do not add up', async () => {
    const { backend } = await earnings(troubled);
    expect(screen.getAllByTestId('problem-card')).toHaveLength(3);
    await fireEvent.click(screen.getByTestId('show-drift'));
    await settle();
    const asked = backend.sent('earnings').map((one) => one.payload.about);
    expect(asked.some((ask) => ask.ask === 'receipts' && ask.filter.drifted)).toBe(true);
    expect(screen.getByTestId<HTMLInputElement>('receipt-drifted').checked).toBe(true);
  });
});

describe('the chart', () => {
  it('has a sentence and a table that say the same', async () => {
    await earnings();
    const summary = screen.getByTestId('series-summary').textContent ?? '';
    expect(summary).toMatch(/of 30 earned something. The best was/);
    const chart = within(screen.getByTestId('series-chart')).getByRole('img');
    expect(chart.getAttribute('aria-label')).toBe(summary);
    await fireEvent.click(screen.getByTestId('series-as-table'));
    const rows = within(screen.getByTestId('series-table')).getAllByRole('row');
    expect(rows.length).toBeGreaterThan(10);
    expect(screen.queryByTestId('series-chart')).toBeNull();
  });

  it('asks for other steps', async () => {
    const { backend } = await earnings();
    const hours = within(screen.getByTestId('series-step-hour')).getByRole('radio');
    await fireEvent.click(hours);
    await settle();
    const last = backend.sent('earnings').map((one) => one.payload.about);
    expect(last).toContainEqual({ ask: 'series', by: 'hour', count: 48 });
  });
});

describe('receipts', () => {
  it('of a million come page by page, and search asks the program', async () => {
    const { backend } = await earnings();
    await choose('receipts');
    expect(screen.getByTestId('receipts-found').textContent).toContain('1,000,000 receipts');
    expect(screen.getAllByTestId('receipt-row')).toHaveLength(50);
    await fireEvent.click(screen.getByText('Show older'));
    await settle();
    expect(screen.getAllByTestId('receipt-row')).toHaveLength(100);
    const search = screen.getByTestId('receipt-search');
    await fireEvent.input(search, { target: { value: 'nobody' } });
    await new Promise((done) => setTimeout(done, 300));
    await settle();
    expect(screen.getByText('Nothing matches.')).toBeTruthy();
    const asked = backend.sent('earnings').map((one) => one.payload.about);
    expect(asked.some((ask) => ask.ask === 'receipts' && ask.filter.text === 'nobody')).toBe(true);
    await fireEvent.input(search, { target: { value: '' } });
    await new Promise((done) => setTimeout(done, 300));
    await settle();
    await fireEvent.click(screen.getAllByTestId('receipt-explain')[0] as HTMLElement);
    expect(screen.getByTestId('receipt-dialog')).toBeTruthy();
  });
});

describe('the page', () => {
  it.each<EarningsView>(['overview', 'receipts', 'jobs', 'sensors'])(
    'asks for the view %s once and then rests',
    async (view) => {
      const { backend } = await earnings();
      if (view !== 'overview') await choose(view);
      const before = backend.sent('earnings').length;
      for (let n = 0; n < 5; n += 1) await settle();
      expect(backend.sent('earnings').length).toBe(before);
    },
  );
});

describe('jobs', () => {
  it('tell outcome, reason and where the time went', async () => {
    await earnings();
    await choose('jobs');
    const rows = screen.getAllByTestId('job-row').map((row) => row.textContent ?? '');
    expect(rows).toHaveLength(24);
    expect(rows[0]).toContain('Paid');
    expect(rows[0]).toContain('computing');
    expect(rows[2]).toContain('Handed back');
    expect(rows[2]).toContain('the miner was stopped');
    const outcome = screen.getByTestId('job-outcome');
    await fireEvent.change(outcome, { target: { value: 'late' } });
    await settle();
    expect(screen.getAllByTestId('job-row')).toHaveLength(3);
  });
});

describe('sensors', () => {
  it('have a line, a sentence and a table each', async () => {
    await earnings();
    await choose('sensors');
    const chart = within(screen.getByTestId('sensor-temperature')).getByRole('img');
    expect(chart.getAttribute('aria-label')).toMatch(/Temperature: last \d+ °C, lowest/);
    await fireEvent.click(screen.getByTestId('sensors-as-table'));
    expect(within(screen.getByTestId('sensors-table')).getAllByRole('row').length).toBeGreaterThan(
      100,
    );
  });
});

describe('energy and files', () => {
  it('take a price and refuse nonsense', async () => {
    const { backend } = await earnings();
    expect(screen.getByTestId('energy-table').textContent).toContain('0.4794 EUR');
    const price = screen.getByTestId('tariff-price');
    await fireEvent.input(price, { target: { value: 'dear' } });
    await fireEvent.click(screen.getByTestId('tariff-save'));
    expect(screen.getByRole('alert').textContent).toContain('no price');
    await fireEvent.input(price, { target: { value: '0,41' } });
    await fireEvent.click(screen.getByTestId('tariff-save'));
    await settle();
    const tariff = { kwh_micro: 410_000, cheap_kwh_micro: 240_000, currency: 'EUR' };
    expect(backend.overview.tariff).toEqual(tariff);
    // One price at all hours again.
    const cheap = screen.getByTestId<HTMLInputElement>('tariff-cheap');
    expect(cheap.value).toBe('0.24');
    await fireEvent.input(cheap, { target: { value: '-1' } });
    await fireEvent.click(screen.getByTestId('tariff-save'));
    expect(screen.getByRole('alert').textContent).toContain('no price');
    await fireEvent.input(cheap, { target: { value: '' } });
    await fireEvent.click(screen.getByTestId('tariff-save'));
    await settle();
    expect(backend.overview.tariff).toEqual({ ...tariff, cheap_kwh_micro: null });
  });

  it('keep a price in thousands, which can be saved again as it is shown', async () => {
    const { backend } = await earnings();
    const price = screen.getByTestId<HTMLInputElement>('tariff-price');
    for (let time = 0; time < 2; time += 1) {
      if (time === 0) await fireEvent.input(price, { target: { value: '2500' } });
      await fireEvent.click(screen.getByTestId('tariff-save'));
      await settle();
      expect(backend.overview.tariff?.kwh_micro).toBe(2_500_000_000);
      expect(price.value).toBe('2500.00');
      expect(screen.queryByRole('alert')).toBeNull();
    }
  });

  it('say where a file lies', async () => {
    await earnings();
    await fireEvent.click(screen.getByTestId('export-receipts-csv'));
    await settle();
    expect(screen.getByTestId('export-saved').textContent).toContain('neurino-receipts.csv');
  });

  it('say why the records cannot be read, and try again', async () => {
    const { backend, session } = await earnings();
    backend.refusals.set('earnings', { code: 'internal', message: 'the disk is gone' });
    await session.ledger.refresh();
    await settle();
    expect(screen.getByTestId('problem-card').textContent).toContain('The disk is gone.');
    await fireEvent.click(screen.getByText('Try again'));
    await settle();
    expect(screen.queryByTestId('problem-card')).toBeNull();
  });

  it('is asked again when a job was paid', async () => {
    const { backend, emit } = await earnings();
    const before = backend.sent('earnings').length;
    emit({ event: 'settled', payload: receipt(0) });
    await settle();
    expect(backend.sent('earnings').length).toBeGreaterThan(before);
  });
});

describe('help', () => {
  it('shows, searches and saves the log', async () => {
    await open(snapshot('waiting'), 'settings');
    await fireEvent.click(screen.getByTestId('log-toggle'));
    await settle();
    expect(screen.getAllByTestId('log-line')).toHaveLength(6);
    await fireEvent.input(screen.getByTestId('log-search'), { target: { value: 'paid' } });
    await new Promise((done) => setTimeout(done, 300));
    await settle();
    expect(screen.getAllByTestId('log-line')).toHaveLength(1);
    await fireEvent.click(screen.getByTestId('log-save'));
    await settle();
    expect(screen.getByText(/neurino-log.txt/)).toBeTruthy();
    await fireEvent.click(screen.getByTestId('bundle-save'));
    await settle();
    expect(screen.getByTestId('bundle-saved').textContent).toContain('bundle.zip');
  });
});

describe('everybody', () => {
  it.each<EarningsView>(['overview', 'receipts', 'jobs', 'sensors'])(
    'can use the view %s',
    async (view) => {
      const { container } = await earnings(troubled);
      if (view !== 'overview') await choose(view);
      // jsdom paints nothing; contrast has a test of its own.
      const rules = { 'color-contrast': { enabled: false } };
      const { violations } = await axe.run(container, { rules });
      expect(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join()}`)).toEqual([]);
    },
  );
});
