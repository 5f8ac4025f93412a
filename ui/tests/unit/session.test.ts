import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { Session } from '../../src/features/session/session.svelte';
import { FakeBackend } from '../fake/backend';
import { receipt, snapshot } from '../fake/samples';

let backend: FakeBackend;
let session: Session;

beforeEach(() => {
  vi.useFakeTimers();
  backend = new FakeBackend(snapshot('stopped'));
  session = new Session(backend);
});

afterEach(() => {
  vi.useRealTimers();
});

describe('connecting', () => {
  it('reads snapshot and preferences', async () => {
    await session.connect();
    expect(session.phase).toBe('ready');
    expect(session.snapshot?.mining.state).toBe('stopped');
    expect(session.preferences?.theme).toBe('system');
  });

  it('keeps a pushed snapshot over the older answer to its question', async () => {
    backend.call = async (command) => {
      if (command.cmd === 'snapshot') {
        backend.emit({ event: 'snapshot', payload: snapshot('working') });
        return { reply: 'snapshot', payload: snapshot('stopped') };
      }
      return { reply: 'preferences', payload: backend.preferences };
    };
    await session.connect();
    expect(session.snapshot?.mining.state).toBe('working');
  });

  it('says why when the program does not answer, and recovers', async () => {
    backend.refusals.set('snapshot', { code: 'internal', message: 'pipe closed' });
    await session.connect();
    expect(session.phase).toBe('lost');
    expect(session.lost?.message).toBe('pipe closed');
    await session.connect();
    expect(session.phase).toBe('ready');
    expect(session.lost).toBeNull();
  });
});

describe('mining', () => {
  beforeEach(() => session.connect());

  it('looks pending until the program shows the new state', async () => {
    await session.start();
    expect(backend.sent('mining_start')).toHaveLength(1);
    expect(session.pending).toBe('start');
    backend.emit({ event: 'snapshot', payload: snapshot('stopped') });
    expect(session.pending).toBe('start');
    backend.emit({ event: 'snapshot', payload: snapshot('starting') });
    expect(session.pending).toBeNull();
  });

  it('stops looking pending when the program never shows it', async () => {
    await session.start();
    vi.advanceTimersByTime(5000);
    expect(session.pending).toBeNull();
  });

  it('passes the way of stopping on', async () => {
    await session.stop('finish');
    await session.stop('now');
    expect(backend.sent('mining_stop').map((c) => c.payload.mode)).toEqual(['finish', 'now']);
  });

  it('shows a refusal and is free again', async () => {
    backend.refusals.set('mining_start', { code: 'model_not_ready', message: 'no model' });
    expect(await session.start()).toBe(false);
    expect(session.pending).toBeNull();
    expect(session.notice?.code).toBe('model_not_ready');
    await session.start();
    expect(session.notice).toBeNull();
  });
});

describe('events', () => {
  beforeEach(() => session.connect());

  it('shows a payment for a moment and takes the sums from the snapshot alone', () => {
    const before = session.snapshot?.points;
    backend.emit({ event: 'settled', payload: receipt(0) });
    expect(session.gain?.micro).toBe(105_000);
    expect(session.snapshot?.points).toEqual(before);
    vi.advanceTimersByTime(5000);
    expect(session.gain).toBeNull();
  });

  it('asks once what closing means, saves the answer and carries it out', async () => {
    backend.emit({ event: 'close_requested' });
    expect(session.closeAsked).toBe(true);
    await session.answerClose('tray');
    expect(session.closeAsked).toBe(false);
    expect(backend.preferences.on_close).toBe('tray');
    expect(backend.sent('window')[0]?.payload.action).toBe('hide');
  });

  it('quits on the other answer', async () => {
    backend.emit({ event: 'close_requested' });
    await session.answerClose('quit');
    expect(backend.preferences.on_close).toBe('quit');
    expect(backend.sent('window')[0]?.payload.action).toBe('quit');
  });
});

describe('preferences', () => {
  beforeEach(() => session.connect());

  it('change at once and go back when they cannot be saved', async () => {
    backend.refusals.set('preferences_set', { code: 'internal', message: 'disk full' });
    const saving = session.setPreferences({ theme: 'dark' });
    expect(session.preferences?.theme).toBe('dark');
    expect(await saving).toBe(false);
    expect(session.preferences?.theme).toBe('system');
  });

  it('are all kept when they follow each other at once', async () => {
    const first = session.setPreferences({ theme: 'dark' });
    const second = session.setPreferences({ on_close: 'quit' });
    expect(session.preferences).toMatchObject({ theme: 'dark', on_close: 'quit' });
    expect(await Promise.all([first, second])).toEqual([true, true]);
    expect(backend.preferences).toMatchObject({ theme: 'dark', on_close: 'quit' });
  });

  it('keep a second change when the first is refused, and say why', async () => {
    backend.refusals.set('preferences_set', { code: 'internal', message: 'disk full' });
    const first = session.setPreferences({ theme: 'dark' });
    const second = session.setPreferences({ on_close: 'quit' });
    expect(await Promise.all([first, second])).toEqual([false, true]);
    const kept = { theme: 'system', on_close: 'quit', language: 'system' };
    expect(session.preferences).toEqual(kept);
    expect(backend.preferences).toEqual(kept);
    expect(session.notice?.message).toBe('disk full');
  });

  it('keep what was not changed', async () => {
    await session.setPreferences({ on_close: 'quit' });
    await session.setPreferences({ theme: 'dark' });
    expect(backend.preferences).toEqual({
      theme: 'dark',
      on_close: 'quit',
      language: 'system',
    });
  });
});

describe('receipts', () => {
  beforeEach(() => session.connect());

  it('asks for what is older than the last one shown', async () => {
    await session.loadOlderReceipts();
    const shown = backend.snapshot.receipts;
    const oldest = shown[shown.length - 1];
    expect(backend.sent('receipts')[0]?.payload.before_ms).toBe(oldest?.settled_at_ms);
    expect(session.receipts).toHaveLength(shown.length + 3);
    expect(session.olderEnd).toBe(true);
  });

  it('leave no hole and no double when a new one pushes the last one out', async () => {
    await session.loadOlderReceipts();
    const before = session.receipts.length;
    const receipts = [receipt(50), ...backend.snapshot.receipts.slice(0, -1)];
    backend.emit({ event: 'snapshot', payload: snapshot('waiting', { receipts }) });
    const events = session.receipts.map((one) => one.event);
    expect(events).toHaveLength(before + 1);
    expect(new Set(events).size).toBe(events.length);
  });
});
