import { fireEvent, screen, waitFor, within } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import type { MiningState } from '../../src/lib/api/types';
import { cpu, gpu, noPoints, pictureReceipt, receipt, snapshot } from '../fake/samples';
import { open, settle } from './render';

describe('the points', () => {
  it('stand first, exact and in one piece for scripts', async () => {
    await open(snapshot('waiting'));
    expect(screen.getByTestId('points-today').textContent).toBe('1.254');
    expect(screen.getByTestId('points-total').textContent?.trim()).toBe('12.4835');
    expect(screen.getByText(/no value outside this machine/)).toBeTruthy();
  });

  it('follow the snapshot', async () => {
    const { emit } = await open(snapshot('working'));
    const points = {
      llama_today: 1_359_000,
      llama_total: 12_588_500,
      waifu_today: 0,
      waifu_total: 0,
      jobs_today: 10,
      jobs_total: 88,
    };
    emit({ event: 'snapshot', payload: snapshot('waiting', { points }) });
    expect(screen.getByTestId('points-today').textContent).toBe('1.359');
    expect(screen.getByTestId('jobs-today').textContent).toBe('10');
  });

  it('tell both kinds once there are pictures', async () => {
    const points = {
      llama_today: 1_254_000,
      llama_total: 12_483_500,
      waifu_today: 31_250,
      waifu_total: 46_875,
      jobs_today: 11,
      jobs_total: 90,
    };
    await open(snapshot('waiting', { points, receipts: [pictureReceipt(), receipt(1)] }));
    expect(screen.getByTestId('waifu-today').textContent).toBe('0.03125');
    expect(screen.getByTestId('waifu-total').textContent).toBe('0.046875');
    const rows = screen.getAllByTestId('receipt-row').map((row) => row.textContent);
    expect(rows[0]).toContain('Picture');
    expect(rows[0]).toContain('Waifu');
    expect(rows[1]).toContain('tokens');
    await fireEvent.click(screen.getAllByTestId('receipt-explain')[0] as HTMLElement);
    expect(screen.getByTestId('receipt-amount').textContent).toBe('0.015625');
    await waitFor(() =>
      expect(screen.getByTestId('receipt-verdict').textContent).toContain('the same amount'),
    );
    expect(screen.getByTestId('receipt-dialog').textContent).toContain('Waifu points');
  });

  it('say how to begin when there are none', async () => {
    await open(snapshot('stopped', noPoints));
    expect(screen.getByText(/Press Start, then ask something/)).toBeTruthy();
    expect(screen.getByText(/leaves a signed receipt/)).toBeTruthy();
  });

  it('are not called practice points on another network', async () => {
    await open(
      snapshot('waiting', {
        network: { name: 'main', practice: false, connected: true, gateway_url: null },
      }),
    );
    expect(screen.queryByText(/no value outside/)).toBeNull();
  });
});

describe('the button', () => {
  it.each<[MiningState, string, string]>([
    ['stopped', 'start-button', 'Start'],
    ['needs_you', 'start-button', 'Start'],
    ['starting', 'stop-button', 'Stop'],
    ['waiting', 'stop-button', 'Stop'],
    ['working', 'stop-button', 'Stop'],
    ['finishing', 'stop-button', 'Stop now'],
  ])('in state %s is the %s and says %s', async (state, testid, word) => {
    await open(snapshot(state));
    expect(screen.getByTestId(testid).textContent?.trim()).toBe(word);
    const other = testid === 'start-button' ? 'stop-button' : 'start-button';
    expect(screen.queryByTestId(other)).toBeNull();
  });

  it('starts once, however often it is pressed', async () => {
    const { backend } = await open(snapshot('stopped'));
    await fireEvent.click(screen.getByTestId('start-button'));
    await fireEvent.click(screen.getByTestId('start-button'));
    expect(backend.sent('mining_start')).toHaveLength(1);
    expect(screen.getByTestId('start-button').getAttribute('aria-disabled')).toBe('true');
  });

  it('finishes the job first, with stopping at once beside it', async () => {
    const { backend } = await open(snapshot('working'));
    await fireEvent.click(screen.getByTestId('stop-button'));
    await fireEvent.click(screen.getByTestId('stop-now-button'));
    await settle();
    expect(backend.sent('mining_stop')[0]?.payload.mode).toBe('finish');
  });

  it('stops at once on the smaller one', async () => {
    const { backend } = await open(snapshot('working'));
    await fireEvent.click(screen.getByTestId('stop-now-button'));
    expect(backend.sent('mining_stop').map((c) => c.payload.mode)).toEqual(['now']);
  });
});

describe('the state', () => {
  it('is read aloud once per state, not with every token', async () => {
    const { emit, container } = await open(snapshot('working'));
    const spoken = () => container.querySelector('[aria-live=polite]')?.textContent;
    const first = spoken();
    const later = snapshot('working');
    later.mining = { ...later.mining, sentence: 'Running a text job: 99 tokens, 7.0 s of 180 s' };
    emit({ event: 'snapshot', payload: later });
    expect(screen.getByTestId('state-sentence').textContent).toContain('99 tokens');
    expect(spoken()).toBe(first);
    emit({ event: 'snapshot', payload: snapshot('waiting') });
    expect(spoken()).toContain('waiting for the next job');
  });

  it('with a problem says what happened and offers the way out', async () => {
    const { backend } = await open(snapshot('needs_you'));
    const card = screen.getByTestId('problem-card');
    expect(card.textContent).toContain('it was set aside, get the model again.');
    await fireEvent.click(within(card).getByText('Try again'));
    expect(backend.sent('mining_start')).toHaveLength(1);
  });

  it('says that the network is gone while mining, and not while stopped', async () => {
    const network = { name: 'practice', practice: true, connected: false, gateway_url: null };
    const { emit } = await open(snapshot('waiting', { network }));
    expect(screen.getByTestId('problem-card').textContent).toContain('cannot be reached');
    emit({ event: 'snapshot', payload: snapshot('stopped', { network }) });
    expect(screen.queryByTestId('problem-card')).toBeNull();
  });
});

describe('the machine and its job', () => {
  it('says plainly that there is no GPU', async () => {
    await open(snapshot('waiting', { devices: [cpu] }));
    const card = screen.getByTestId('device-card');
    expect(card.textContent).toContain('No NVIDIA GPU found. Neurino is using the processor.');
    expect(card.textContent).toContain('11.0 GB of 31.3 GB');
  });

  it('shows what a GPU knows about itself, and leaves out what is not known', async () => {
    const { emit } = await open(snapshot('waiting', { devices: [gpu] }));
    const card = screen.getByTestId('device-card');
    expect(card.textContent).not.toContain('No NVIDIA GPU');
    expect(card.textContent).toContain('318 W');
    const mute = { ...gpu, load_percent: null, temperature_c: null, power_w: null };
    emit({ event: 'snapshot', payload: snapshot('waiting', { devices: [mute] }) });
    for (const word of ['Load', 'Temperature', 'Power']) {
      expect(card.textContent).not.toContain(word);
    }
  });

  it('shows tokens and time of the job in words', async () => {
    const { emit } = await open(snapshot('working'));
    const card = screen.getByTestId('job-card');
    expect(card.textContent).toContain('43 tokens, 3.1 s of 180 s');
    expect(card.textContent).toContain('SmolLM2 135M Instruct');
    expect(within(card).getByRole('progressbar').getAttribute('aria-valuenow')).toBe('1');
    expect(card.textContent).not.toContain('at the same time');
    const working = snapshot('working');
    const job = working.job ? { ...working.job, jobs: 3 } : null;
    emit({ event: 'snapshot', payload: { ...working, job } });
    expect(card.textContent).toContain('2 more at the same time');
    emit({ event: 'snapshot', payload: snapshot('waiting') });
    await fireEvent.click(within(card).getByText('Ask something in the Playground'));
    expect(screen.getByTestId('chat-input')).toBeTruthy();
  });
});

describe('the receipts', () => {
  it('open their computation step by step', async () => {
    await open(snapshot('waiting'));
    expect(screen.getAllByTestId('receipt-row')).toHaveLength(6);
    await fireEvent.click(screen.getAllByTestId('receipt-explain')[0] as HTMLElement);
    const dialog = screen.getByTestId('receipt-dialog');
    const rows = within(dialog)
      .getAllByRole('row', { hidden: true })
      .map((row) => [...row.children].map((cell) => cell.textContent?.trim()).join(' '));
    expect(rows).toEqual([
      ' Tokens read 38',
      '+ Tokens written 67',
      '= Tokens together 105',
      '÷ Tokens per point 1,000',
      '= Base 0.105',
      '× Factor of SmolLM2 135M Instruct 1',
      '× Your multiplier 1',
      '= Llama points 0.105000',
    ]);
    await waitFor(() =>
      expect(screen.getByTestId('receipt-verdict').textContent).toContain('the same amount'),
    );
    expect(dialog.textContent).toContain('practice1');
    expect(dialog.textContent).toContain('0x4b1d9e07…1d9e07c2');
  });

  it('that do not add up are called out', async () => {
    const wrong = receipt(0);
    wrong.quote = { ...wrong.quote, amount_micro: 90_000 };
    await open(snapshot('waiting', { receipts: [wrong] }));
    await fireEvent.click(screen.getByTestId('receipt-explain'));
    await waitFor(() => {
      const verdict = screen.getByTestId('receipt-verdict').textContent;
      expect(verdict).toContain('0.105000 points. This receipt does not add up.');
    });
  });

  it('whose factor the rules do not know are called out, though their figures agree', async () => {
    const wrong = receipt(0);
    wrong.quote = { ...wrong.quote, factor: 2_000_000, amount_micro: 210_000 };
    await open(snapshot('waiting', { receipts: [wrong] }));
    await fireEvent.click(screen.getByTestId('receipt-explain'));
    await waitFor(() => {
      const verdict = screen.getByTestId('receipt-verdict');
      expect(verdict.textContent).toContain('By the rules the factor is 1, not 2.');
      expect(verdict.className).toContain('differs');
    });
  });

  it('of unknown rules are neither right nor wrong', async () => {
    await open(snapshot('waiting', { receipts: [{ ...receipt(0), rule_set: 'season9' }] }));
    await fireEvent.click(screen.getByTestId('receipt-explain'));
    await waitFor(() => {
      const verdict = screen.getByTestId('receipt-verdict');
      expect(verdict.textContent).toContain('does not know the rules season9');
      expect(verdict.className).toContain('unknown');
    });
  });

  it('close again with the button', async () => {
    await open(snapshot('waiting'));
    await fireEvent.click(screen.getAllByTestId('receipt-explain')[0] as HTMLElement);
    await fireEvent.click(screen.getByLabelText('Close'));
    expect(screen.queryByTestId('receipt-dialog')).toBeNull();
  });

  it('offer older ones only where there can be some', async () => {
    const { emit, backend } = await open(snapshot('waiting'));
    expect(screen.queryByText('Show older')).toBeNull();
    const receipts = Array.from({ length: 20 }, (_, index) => receipt(index));
    emit({ event: 'snapshot', payload: snapshot('waiting', { receipts }) });
    await fireEvent.click(screen.getByText('Show older'));
    await settle();
    expect(backend.sent('receipts')).toHaveLength(1);
    expect(screen.getAllByTestId('receipt-row')).toHaveLength(23);
    expect(screen.queryByText('Show older')).toBeNull();
  });
});
