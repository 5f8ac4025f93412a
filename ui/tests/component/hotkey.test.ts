import { fireEvent, screen } from '@testing-library/svelte';
import { describe, expect, it } from 'vitest';

import { pressed } from '../../src/features/hotkey/keys';
import { snapshot } from '../fake/samples';
import { open, settle } from './render';

async function settings() {
  const opened = await open(snapshot('stopped'), 'settings');
  await settle();
  return opened;
}

describe('the hotkey', () => {
  it('is off, and is set by pressing it', async () => {
    const { backend } = await settings();
    expect(screen.getByTestId('hotkey-off').textContent).toBe('No hotkey');
    await fireEvent.click(screen.getByTestId('hotkey-choose'));
    await settle();
    const field = screen.getByTestId('hotkey-field');
    expect(document.activeElement).toBe(field);
    await fireEvent.keyDown(field, { key: 'Control', ctrlKey: true });
    await fireEvent.keyDown(field, { key: 'Alt', ctrlKey: true, altKey: true });
    expect(field.textContent?.trim()).toBe('Ctrl + Alt');
    // A letter alone would be taken from every other program.
    await fireEvent.keyDown(field, { key: 'm', code: 'KeyM' });
    expect(field.textContent).toContain('needed by other programs');
    expect(backend.hotkey.keys).toBeNull();
    await fireEvent.keyDown(field, { key: 'µ', code: 'KeyM', ctrlKey: true, altKey: true });
    await settle();
    expect(backend.hotkey.keys).toBe('Ctrl+Alt+M');
    expect(screen.getByTestId('hotkey-keys').textContent?.replace(/\s/g, '')).toBe('Ctrl+Alt+M');
    expect(document.activeElement).toBe(screen.getByTestId('hotkey-choose'));
    await fireEvent.click(screen.getByTestId('hotkey-remove'));
    await settle();
    expect(backend.hotkey.keys).toBeNull();
  });

  it('stays as it was after Esc and after a conflict', async () => {
    const { backend } = await settings();
    await fireEvent.click(screen.getByTestId('hotkey-choose'));
    await settle();
    await fireEvent.keyDown(screen.getByTestId('hotkey-field'), { key: 'Escape' });
    await settle();
    expect(screen.getByTestId('hotkey-off')).toBeTruthy();
    const message = 'another program has Ctrl+Alt+P';
    const hint = 'choose other keys, or free them in the other program';
    backend.refusals.set('hotkey', { code: 'invalid_request', message, hint });
    await fireEvent.click(screen.getByTestId('hotkey-choose'));
    await settle();
    const press = { key: 'p', code: 'KeyP', ctrlKey: true, altKey: true };
    await fireEvent.keyDown(screen.getByTestId('hotkey-field'), press);
    await settle();
    const card = screen.getByTestId('hotkey').textContent;
    expect(card).toContain('Another program has Ctrl+Alt+P.');
    expect(card).toContain('Choose other keys');
    expect(backend.hotkey.keys).toBeNull();
  });

  it('says what helps where no program can have one', async () => {
    const { backend, session } = await settings();
    backend.hotkey = { way: 'wayland', keys: null, problem: null };
    await session.hotkey.ask({ ask: 'look' });
    await settle();
    expect(screen.queryByTestId('hotkey-choose')).toBeNull();
    expect(screen.getByTestId('hotkey').textContent).toContain('neurino toggle');
  });
});

describe('a press', () => {
  const none = { ctrlKey: false, altKey: false, shiftKey: false, metaKey: false };

  it.each([
    [{ key: 'y', code: 'KeyZ', ctrlKey: true }, 'Ctrl+Y'],
    [{ key: '!', code: 'Digit1', ctrlKey: true, shiftKey: true }, 'Ctrl+Shift+1'],
    [{ key: 'ArrowUp', code: 'ArrowUp', metaKey: true }, 'Super+Up'],
    [{ key: ' ', code: 'Space', altKey: true }, 'Alt+Space'],
    [{ key: 'F12', code: 'F12', ctrlKey: true }, 'Ctrl+F12'],
    [{ key: 'Pause', code: 'Pause' }, 'Pause'],
  ])('of %o is %s', (press, keys) => {
    expect(pressed({ ...none, ...press })).toEqual({ kind: 'hotkey', keys });
  });

  it('of a key that cannot be one is none', () => {
    expect(pressed({ ...none, ctrlKey: true, key: 'ß', code: 'Minus' }).kind).toBe('unknown');
    expect(pressed({ ...none, shiftKey: true, key: 'F5', code: 'F5' }).kind).toBe('bare');
  });
});
