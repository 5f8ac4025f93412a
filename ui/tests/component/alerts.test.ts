import { fireEvent, screen } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { fullDisk, hot } from '../fake/alerts';
import { snapshot } from '../fake/samples';
import { open, settle } from './render';

describe('alerts', () => {
  it('stand on Home while they last', async () => {
    const { emit } = await open(snapshot('working', { alerts: [hot, fullDisk] }));
    expect(screen.getByTestId('alert-hot').textContent).toContain('limit its power');
    expect(screen.getByTestId('alert-low_disk').textContent).toContain('nearly full');
    emit({ event: 'snapshot', payload: snapshot('working', { alerts: [fullDisk] }) });
    expect(screen.queryByTestId('alert-hot')).toBeNull();
  });

  it('are set up with switches and thresholds, and a refusal is told', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await settle();
    await fireEvent.click(screen.getByTestId('alert-stuck-on'));
    await settle();
    expect(backend.alerts.rules.stuck).toBe(false);
    expect(screen.queryByTestId('alert-stuck-minutes')).toBeNull();
    const field = screen.getByTestId<HTMLInputElement>('alert-hot-c');
    await fireEvent.change(field, { target: { value: '80' } });
    await settle();
    expect(backend.alerts.rules.hot_c).toBe(80);
    const message = 'the temperature to alert at must be between 50 and 105, not 20';
    backend.refusals.set('alerts', { code: 'invalid_request', message });
    await fireEvent.change(field, { target: { value: '20' } });
    await settle();
    expect(screen.getByTestId('alerts').textContent).toContain('between 50 and 105');
    expect(field.value).toBe('80');
  });
});
