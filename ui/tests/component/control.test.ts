import { fireEvent, screen, within } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { countdown } from '../../src/features/control/left';
import { clock, letterAt, moved, painted } from '../../src/features/control/week';
import { anyway, coolingDown, rulesView, snoozed } from '../fake/control';
import { snapshot } from '../fake/samples';
import { open, settle } from './render';

describe('a rule that holds', () => {
  it('says why, proves what it gave back, and offers both ways out', async () => {
    const { backend } = await open(snapshot('paused'));
    expect(screen.getByTestId('state-sentence').textContent).toContain('Doom is running');
    expect(screen.getByTestId('state-sentence').dataset.state).toBe('paused');
    expect(screen.getByTestId('gave-back').textContent?.trim()).toBe(
      'Gave back 9.8 GB in 0.9 s, 1 job handed on',
    );
    await fireEvent.click(screen.getByTestId('resume-anyway'));
    expect(backend.sent('mining_start')).toHaveLength(1);
    expect(screen.queryByTestId('last-minutes')).toBeNull();
    await fireEvent.click(screen.getByTestId('change-rule'));
    await settle();
    expect(document.activeElement?.getAttribute('data-section')).toBe('games');
  });

  it('leads to the last minutes of the sensors after a crash', async () => {
    const cause = { cause: 'crash' } as const;
    const decision = { ...coolingDown(0), why: { by: 'rule', cause } as const, until_ms: null };
    const { backend } = await open(snapshot('paused', { control: { decision, gave_back: null } }));
    await fireEvent.click(screen.getByTestId('last-minutes'));
    await settle();
    const asked = backend.sent('earnings').map((command) => command.payload.about);
    expect(asked).toContainEqual({ ask: 'telemetry', span: 'ten_minutes' });
    expect(screen.getByTestId('earnings-view-sensors')).toBeTruthy();
  });

  it('counts the time that is left', async () => {
    const control = { decision: coolingDown(Date.now() + 161_000), gave_back: null };
    await open(snapshot('paused', { control }));
    expect(screen.getByTestId('time-left').textContent).toMatch(/2:4[01] left/);
  });

  it('that the person set aside can be followed again', async () => {
    const control = { decision: anyway, gave_back: null };
    const { backend } = await open(snapshot('working', { control }));
    expect(screen.getByTestId('aside').textContent).toContain('sets aside your schedule');
    expect(screen.queryByTestId('resume-anyway')).toBeNull();
    await fireEvent.click(screen.getByTestId('follow-rules'));
    expect(backend.sent('mining_order')[0]?.payload.order).toEqual({ order: 'follow_rules' });
  });

  it('leaves nothing on Home where none holds', async () => {
    await open(snapshot('working'));
    expect(screen.queryByTestId('held')).toBeNull();
  });
});

describe('a pause', () => {
  it.each([
    ['15', 15],
    ['60', 60],
    ['open', null],
  ])('of %s is a click away', async (id, minutes) => {
    const { backend } = await open(snapshot('working'));
    await fireEvent.click(screen.getByTestId('pause-menu'));
    await fireEvent.click(screen.getByTestId(`pause-menu-${id}`));
    const order = { order: 'snooze', minutes };
    expect(backend.sent('mining_order').map((c) => c.payload.order)).toEqual([order]);
    expect(screen.queryByRole('menu')).toBeNull();
  });

  it('can be chosen by keyboard, and Esc closes the menu', async () => {
    await open(snapshot('waiting'));
    await fireEvent.click(screen.getByTestId('pause-menu'));
    const menu = screen.getByRole('menu');
    await fireEvent.keyDown(menu, { key: 'End' });
    expect(document.activeElement?.textContent?.trim()).toBe('Stop now');
    await fireEvent.keyDown(menu, { key: 'ArrowDown' });
    expect(document.activeElement?.textContent?.trim()).toBe('Pause for 15 minutes');
    await fireEvent.keyDown(menu, { key: 'Escape' });
    expect(screen.queryByRole('menu')).toBeNull();
    expect(document.activeElement).toBe(screen.getByTestId('pause-menu'));
  });

  it('ends with the big button, and can become a stop', async () => {
    const control = { decision: snoozed(Date.now() + 3_000_000), gave_back: null };
    const { backend } = await open(snapshot('paused', { control }));
    expect(screen.getByTestId('start-button').textContent?.trim()).toBe('Resume');
    await fireEvent.click(screen.getByTestId('stop-now-button'));
    expect(backend.sent('mining_stop')[0]?.payload.mode).toBe('now');
  });
});

describe('the rules', () => {
  it('are saved one by one', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    await fireEvent.change(screen.getByTestId('when-select'), { target: { value: 'away' } });
    await fireEvent.click(screen.getByTestId('pause-on-battery'));
    await settle();
    const sent = backend.sent('rules_set').map((c) => c.payload.rules);
    expect(sent[0]?.when).toBe('away');
    expect(sent[1]).toMatchObject({ when: 'away', pause_on_battery: false });
    expect(screen.getByTestId('idle-minutes')).toBeTruthy();
  });

  it('keep both of two changes that follow each other at once', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    // The second comes before the first is saved.
    void fireEvent.change(screen.getByTestId('when-select'), { target: { value: 'away' } });
    void fireEvent.click(screen.getByTestId('pause-on-battery'));
    await settle();
    const sent = backend.sent('rules_set').map((c) => c.payload.rules);
    expect(sent[1]).toMatchObject({ when: 'away', pause_on_battery: false });
  });

  it('tell what was refused though a later change was taken', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    const message = 'the drive is full';
    backend.refusals.set('rules_set', { code: 'internal', message });
    const when = screen.getByTestId<HTMLSelectElement>('when-select');
    const shownBefore = when.value;
    const battery = screen.getByTestId<HTMLInputElement>('pause-on-battery');
    void fireEvent.change(when, { target: { value: 'away' } });
    void fireEvent.click(battery);
    await settle();
    expect(when.value).toBe(shownBefore);
    expect(backend.rules.rules).toMatchObject({ when: shownBefore, pause_on_battery: false });
    expect(battery.checked).toBe(false);
    expect(document.body.textContent).toContain('The drive is full.');
  });

  it('leave a switch where it was when it is refused', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    backend.refusals.set('rules_set', { code: 'internal', message: 'the drive is full' });
    const battery = screen.getByTestId<HTMLInputElement>('pause-on-battery');
    await fireEvent.click(battery);
    await settle();
    expect(battery.checked).toBe(true);
  });

  it('stay as they were where a change is refused', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    const message = 'the temperature to stop at must be between 50 and 105, not 500';
    backend.refusals.set('rules_set', { code: 'invalid_request', message });
    const field = screen.getByTestId<HTMLInputElement>('hot-stop');
    await fireEvent.change(field, { target: { value: '500' } });
    await settle();
    expect(field.value).toBe('88');
    expect(screen.getByTestId('rules').textContent).toContain('between 50 and 105');
  });

  it('name programs', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    const list = within(screen.getByTestId('games-list'));
    await fireEvent.click(list.getByLabelText('Remove doom'));
    await fireEvent.input(list.getByRole('textbox'), { target: { value: ' quake ' } });
    await fireEvent.click(list.getByText('Add'));
    const games = backend.sent('rules_set').map((c) => c.payload.rules.games);
    expect(games).toEqual([['factorio'], ['factorio', 'quake']]);
  });

  it('keep a name that was refused in its field, to be mended', async () => {
    const { backend } = await open(snapshot('stopped'), 'settings');
    backend.refusals.set('rules_set', { code: 'invalid_request', message: 'no name' });
    const list = within(screen.getByTestId('games-list'));
    const field = list.getByRole<HTMLInputElement>('textbox');
    await fireEvent.input(field, { target: { value: '/' } });
    await fireEvent.click(list.getByText('Add'));
    await settle();
    expect(field.value).toBe('/');
    await fireEvent.input(field, { target: { value: 'quake' } });
    await fireEvent.click(list.getByText('Add'));
    await settle();
    expect(field.value).toBe('');
  });

  it('say what this system cannot tell', async () => {
    const { backend } = await open(snapshot('stopped'));
    const abilities = { ...rulesView.abilities, idle: false, metered: false };
    backend.rules = { ...rulesView, rules: { ...rulesView.rules, when: 'away' }, abilities };
    await fireEvent.click(screen.getByTestId('nav-settings'));
    await settle();
    const text = screen.getByTestId('rules').textContent;
    expect(text).toContain('does not tell whether you are away');
    expect(text).toContain('does not tell whether the network is metered');
    expect(text).not.toContain('does not tell where its power comes from');
  });

  it('keep the week, painted by keyboard and by mouse', async () => {
    const { backend } = await open(snapshot('stopped'));
    backend.rules = { ...rulesView, rules: { ...rulesView.rules, when: 'schedule' } };
    await fireEvent.click(screen.getByTestId('nav-settings'));
    await settle();
    const grid = screen.getByTestId('week-grid');
    const cell = (day: number, hour: number) =>
      grid.querySelector(`[data-at="${day}-${hour}"]`) as HTMLElement;
    expect(cell(0, 0).getAttribute('aria-label')).toBe(
      'Monday 00:00 to 01:00: Mine, cheap electricity',
    );
    await fireEvent.click(screen.getByTestId('brush-.'));
    await fireEvent.keyDown(cell(0, 0), { key: 'ArrowRight', shiftKey: true });
    await settle();
    expect(backend.sent('rules_set')[0]?.payload.rules.week[0]?.slice(0, 3)).toBe('..c');
    expect(document.activeElement).toBe(cell(0, 1));
    await fireEvent.pointerDown(cell(6, 22), { button: 0 });
    await fireEvent.pointerEnter(cell(6, 23));
    expect(backend.sent('rules_set')).toHaveLength(1);
    await fireEvent.pointerUp(window);
    await settle();
    expect(backend.sent('rules_set')[1]?.payload.rules.week[6]?.slice(21)).toBe('m..');
  });

  it('keep both of two hours that are painted before the first is saved', async () => {
    const { backend } = await open(snapshot('stopped'));
    backend.rules = { ...rulesView, rules: { ...rulesView.rules, when: 'schedule' } };
    await fireEvent.click(screen.getByTestId('nav-settings'));
    await settle();
    await fireEvent.click(screen.getByTestId('brush-.'));
    for (const hour of [1, 3]) {
      const cell = document.querySelector(`[data-at="0-${hour}"]`) as HTMLElement;
      void fireEvent.keyDown(cell, { key: 'Enter' });
    }
    await settle();
    const monday = backend.rules.rules.week[0] ?? '';
    expect([monday[1], monday[3]]).toEqual(['.', '.']);
  });

  it('show what was decided', async () => {
    await open(snapshot('stopped'), 'settings');
    await fireEvent.click(screen.getByTestId('open-decisions'));
    await settle();
    const entries = screen.getAllByTestId('decision');
    expect(entries).toHaveLength(6);
    expect(entries[0]?.textContent).toContain('doom is running');
  });
});

describe('words of the control', () => {
  it('count down', () => {
    expect(countdown(161_000, 0)).toBe('2:41');
    expect(countdown(0, 5)).toBe('0:00');
    expect(countdown(3_600_000, 0)).toBe('1 h 00 min');
    expect(countdown(11_100_000, 0)).toBe('3 h 05 min');
  });

  it('keep the week whole', () => {
    const week = Array.from({ length: 7 }, () => '.'.repeat(24));
    const one = painted(week, 2, 5, 'c');
    expect(one.map((row) => row.length)).toEqual(Array(7).fill(24));
    expect([letterAt(one, 2, 5), letterAt(one, 2, 6), letterAt([], 9, 9)]).toEqual(['c', '.', '.']);
    expect(clock(24)).toBe('24:00');
    expect(moved('ArrowUp', 0, 3)).toEqual([0, 3]);
    expect(moved('End', 4, 3)).toEqual([4, 23]);
    expect(moved('x', 4, 3)).toBeNull();
  });
});
