import { fireEvent, screen } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { snapshot } from '../fake/samples';
import { byHand, ready, takenBack, updateView } from '../fake/update';
import { open, settle } from './render';

describe('updates', () => {
  it('wait on Home with what is new, and are installed or put off', async () => {
    const { backend, emit } = await open(snapshot('working', { update: ready }));
    const notice = screen.getByTestId('update-notice');
    expect(notice.textContent).toContain('Neurino 0.2.0 is ready.');
    expect(notice.textContent).toContain('a third faster');
    await fireEvent.click(screen.getByTestId('update-install'));
    expect(backend.commands).toContainEqual({ cmd: 'update', payload: { ask: 'install' } });
    await fireEvent.click(screen.getByTestId('update-later'));
    expect(backend.commands).toContainEqual({ cmd: 'update', payload: { ask: 'later' } });
    const later = { ...ready, later_until_ms: Date.now() + 86_400_000 };
    emit({ event: 'snapshot', payload: snapshot('working', { update: later }) });
    expect(screen.queryByTestId('update-notice'), 'put off is quiet').toBeNull();
  });

  it('are left to the package tool where it keeps the program', async () => {
    await open(snapshot('working', { update: byHand }));
    expect(screen.getByTestId('update-notice').textContent).toContain('sudo apt install /home/ada');
    expect(screen.queryByTestId('update-install')).toBeNull();
  });

  it('that did not come up are told, and can be tried again in the settings', async () => {
    const { backend } = await open(snapshot('waiting', { update: takenBack }), 'settings');
    await settle();
    expect(screen.getByTestId('update-state').textContent).toContain('did not come up');
    expect(screen.getByTestId('update-check').textContent).toContain('Look now');
    await fireEvent.click(screen.getByTestId('settings-install'));
    expect(backend.commands).toContainEqual({ cmd: 'update', payload: { ask: 'install' } });
  });

  it('that did not come up are told on Home until the person has read it', async () => {
    const { backend, emit } = await open(snapshot('waiting', { update: takenBack }));
    await fireEvent.click(screen.getByTestId('update-dismiss'));
    expect(backend.commands).toContainEqual({ cmd: 'update', payload: { ask: 'later' } });
    const dismissed = { ...takenBack, dismissed: true } as const;
    emit({ event: 'snapshot', payload: snapshot('waiting', { update: dismissed }) });
    await settle();
    expect(screen.queryByTestId('update-notice')).toBeNull();
  });

  it('are set up, and the way back is asked about first', async () => {
    const shown = await open(snapshot('stopped'), 'settings');
    const { backend } = shown;
    backend.update = updateView({ back_to: '0.0.9' });
    await shown.session.update.ask({ ask: 'look' });
    await settle();
    await fireEvent.click(screen.getByTestId('update-by-itself'));
    await settle();
    expect(backend.update.preferences).toEqual({ check: true, by_itself: false });
    await fireEvent.click(screen.getByTestId('update-back'));
    expect(backend.commands).not.toContainEqual({ cmd: 'update', payload: { ask: 'back' } });
    await fireEvent.click(screen.getByTestId('update-back-now'));
    expect(backend.commands).toContainEqual({ cmd: 'update', payload: { ask: 'back' } });
  });

  it('say so where the build names no place', async () => {
    const shown = await open(snapshot('stopped'), 'settings');
    shown.backend.update = updateView({ keeper: 'nobody', checked_at_ms: null });
    await shown.session.update.ask({ ask: 'look' });
    await settle();
    expect(screen.getByTestId('update-state').textContent).toContain('does not update itself');
    expect(screen.queryByTestId('update-check')).toBeNull();
  });
});

describe('notifications', () => {
  it('have a switch each, and one can be tried', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await settle();
    expect(screen.getByTestId<HTMLInputElement>('notice-needs_you').checked).toBe(true);
    expect(screen.getByTestId<HTMLInputElement>('notice-weekly').checked).toBe(false);
    await fireEvent.click(screen.getByTestId('notice-weekly'));
    await settle();
    expect(backend.notices.weekly).toBe(true);
    await fireEvent.click(screen.getByTestId('notice-test'));
    await settle();
    expect(screen.getByTestId('notices').textContent).toContain('Sent');
    const message = 'Nothing on this desktop shows notifications.';
    backend.refusals.set('notices', { code: 'invalid_request', message });
    await fireEvent.click(screen.getByTestId('notice-test'));
    await settle();
    expect(screen.getByTestId('notices').textContent).toContain('shows notifications.');
    expect(screen.getByTestId('notices').textContent).not.toContain('Sent');
  });
});
