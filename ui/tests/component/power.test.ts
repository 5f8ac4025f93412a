import { fireEvent, screen, within } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import type { PowerView } from '../../src/lib/api/types';
import { powers, powerView, searched } from '../fake/power';
import { gpu, snapshot } from '../fake/samples';
import { open, settle } from './render';

async function settings(view: PowerView, state: 'working' | 'stopped' = 'working') {
  const opened = await open(snapshot(state), 'settings');
  opened.backend.power = view;
  await opened.session.power.ask({ ask: 'look' });
  await settle();
  return opened;
}

describe('a power limit', () => {
  it('is chosen with the slider and taken away again', async () => {
    const { backend } = await settings(powers.limited ?? powerView());
    const slider = screen.getByTestId<HTMLInputElement>('limit-slider');
    expect([slider.min, slider.max, slider.value]).toEqual(['150', '600', '320']);
    expect(screen.getByTestId('limit-value').textContent).toContain('71 % of the usual');
    await fireEvent.input(slider, { target: { value: '300' } });
    expect(screen.getByTestId('limit-value').textContent).toContain('300 W');
    await fireEvent.change(slider);
    await settle();
    await fireEvent.click(screen.getByTestId('limit-own'));
    const asked = backend.sent('power').map((sent) => sent.payload);
    const limits = asked.filter((one) => one.ask === 'limit').map((one) => one.limit_w);
    expect(limits).toEqual([300, null]);
  });

  it('that may not be changed has no slider, and says what to do', async () => {
    await settings(powers.forbidden ?? powerView());
    expect(screen.queryByTestId('limit-slider')).toBeNull();
    expect(screen.queryByTestId('sweep')).toBeNull();
    expect(screen.getByTestId('limit-command').textContent).toContain('nvidia-smi -i 0 -pl 337');
    expect(screen.getByTestId('awake-failed').textContent).toContain('logind');
  });

  it('of a machine without a card is a sentence', async () => {
    await settings(powers.none ?? powerView());
    expect(screen.getByTestId('no-cards').textContent).toContain('no NVIDIA card');
    expect(screen.queryByTestId('card-limit')).toBeNull();
  });

  it('that somebody else set is said to be theirs', async () => {
    await settings(powers.theirs ?? powerView());
    expect(screen.getByTestId('limit-state').textContent).toContain('Another program set 380 W');
  });

  it('stands beside the power on Home', async () => {
    await open(snapshot('working', { devices: [{ ...gpu, limit_w: 320 }] }));
    expect(screen.getByTestId('device-limit').textContent).toBe('of 320 W');
  });
});

describe('the search for the best limit', () => {
  it('needs mining and has no button without it', async () => {
    await settings(powers.own ?? powerView(), 'stopped');
    expect(screen.getByTestId('sweep-needs').textContent).toContain('Start mining first');
    expect(screen.queryByTestId('sweep-start')).toBeNull();
  });

  it('can be started and broken off', async () => {
    const { backend } = await settings(powers.own ?? powerView());
    await fireEvent.click(screen.getByTestId('sweep-start'));
    await settle();
    expect(screen.getByTestId('sweep-stage').textContent).toContain('Trying 360 W');
    await fireEvent.click(screen.getByTestId('sweep-stop'));
    const asked = backend.sent('power').map((sent) => sent.payload.ask);
    expect(asked.filter((ask) => ask.startsWith('sweep'))).toEqual(['sweep_start', 'sweep_stop']);
  });

  it('shows its table, and the person applies the advice', async () => {
    const { backend } = await settings(powers.searched ?? powerView());
    const table = within(screen.getByTestId('sweep')).getByRole('table');
    expect(within(table).getAllByRole('row')).toHaveLength(searched.rows.length + 1);
    const advice = screen.getByTestId('sweep-stage').textContent;
    expect(advice).toContain('270 W works best');
    expect(advice).toContain('39 % more points per kWh than at 450 W, 82 % of the best pace');
    await fireEvent.click(screen.getByTestId('sweep-use'));
    await settle();
    expect(backend.power.cards[0]?.limit_w).toBe(270);
    expect(screen.queryByRole('table')).toBeNull();
  });
});

describe('sleep and the person at the machine', () => {
  it('is a choice of three', async () => {
    const { backend } = await settings(powerView());
    expect(screen.getByTestId('awake-now')).toBeTruthy();
    await fireEvent.change(screen.getByTestId('keep-awake'), { target: { value: 'mining' } });
    await settle();
    expect(backend.power.keep_awake).toBe('mining');
  });

  it('going easy shows what it takes, and power only where a card lets it', async () => {
    const { backend } = await settings(powers.forbidden ?? powerView());
    expect(screen.queryByTestId('gentle-minutes')).toBeNull();
    await fireEvent.click(screen.getByTestId('gentle-on'));
    await settle();
    expect(backend.rules.rules.gentle).toBe(true);
    expect(screen.getByTestId('gentle-minutes')).toBeTruthy();
    expect(screen.queryByTestId('gentle-share')).toBeNull();
  });
});
