import { fireEvent, render, screen } from '@testing-library/svelte';
import axe from 'axe-core';
import { flushSync } from 'svelte';
import { afterEach, describe, expect, it, vi } from 'vitest';

import App from '../../src/App.svelte';
import { Session } from '../../src/features/session/session.svelte';
import { pages } from '../../src/views/pages';
import { FakeBackend } from '../fake/backend';
import { pictureReceipt, PNG, receipt, snapshot, starter } from '../fake/samples';
import { open, settle } from './render';

afterEach(() => {
  vi.useRealTimers();
  delete document.documentElement.dataset.theme;
  localStorage.clear();
});

describe('the Playground', () => {
  async function ask(question: string) {
    const opened = await open(snapshot('waiting'), 'playground');
    const input = screen.getByTestId<HTMLTextAreaElement>('chat-input');
    await fireEvent.input(input, { target: { value: question } });
    return { ...opened, input };
  }

  it('sends with Enter and not with Shift+Enter', async () => {
    const { backend, input } = await ask('Why is the sky blue?');
    await fireEvent.keyDown(input, { key: 'Enter', shiftKey: true });
    expect(backend.sent('chat_send')).toHaveLength(0);
    await fireEvent.keyDown(input, { key: 'Enter' });
    expect(backend.sent('chat_send')).toHaveLength(1);
    expect(input.value).toBe('');
  });

  it('does not send while an input method composes', async () => {
    const { backend, input } = await ask('空');
    await fireEvent.keyDown(input, { key: 'Enter', isComposing: true });
    expect(backend.sent('chat_send')).toHaveLength(0);
  });

  it('shows the answer as it comes, then tokens and points', async () => {
    const { backend, emit } = await ask('Hello');
    await fireEvent.click(screen.getByTestId('chat-send'));
    const chat = backend.sent('chat_send')[0]?.payload.chat ?? '';
    const usage = { prompt_tokens: 38, completion_tokens: 67 };
    emit({ event: 'chat', payload: { chat, update: { kind: 'delta', text: 'Line 1\nLine' } } });
    emit({ event: 'chat', payload: { chat, update: { kind: 'delta', text: ' 2' } } });
    expect(screen.getByTestId('chat-answer').textContent?.trim()).toBe('Line 1\nLine 2');
    emit({
      event: 'chat',
      payload: { chat, update: { kind: 'done', usage, duration_ms: 3140 } },
    });
    emit({ event: 'settled', payload: receipt(0, { usage }) });
    const meta = screen.getByTestId('chat-meta').textContent;
    expect(meta).toContain('38 tokens read, 67 written');
    expect(meta).toContain('earned 0.105 points');
  });

  it('makes pictures in its other half, and each half keeps its draft', async () => {
    const { backend, emit, input } = await ask('Hello');
    await fireEvent.click(screen.getByTestId('making-image'));
    const words = screen.getByTestId<HTMLTextAreaElement>('picture-input');
    await fireEvent.input(words, { target: { value: 'a red circle' } });
    await fireEvent.keyDown(words, { key: 'Enter' });
    const picture = backend.sent('picture_send')[0]?.payload.picture ?? '';
    expect(picture).not.toBe('');
    emit({ event: 'picture', payload: { picture, update: { kind: 'preview', png: PNG } } });
    expect(screen.getByTestId('picture-preview').getAttribute('alt')).toContain('a red circle');
    const done = { kind: 'done' as const, png: PNG, duration_ms: 940 };
    emit({ event: 'picture', payload: { picture, update: done } });
    emit({ event: 'settled', payload: pictureReceipt() });
    expect(screen.getByTestId('picture-image').getAttribute('src')).toContain(PNG);
    const meta = screen.getByTestId('picture-meta').textContent;
    expect(meta).toContain('64 × 64, 20 steps');
    expect(meta).toContain('earned 0.015625 Waifu points');
    await fireEvent.click(screen.getByTestId('picture-save'));
    await settle();
    expect(screen.getByText(/Saved as/)).toBeTruthy();
    await fireEvent.click(screen.getByTestId('making-text'));
    expect(screen.getByTestId<HTMLTextAreaElement>('chat-input').value).toBe('Hello');
    expect(input.isConnected).toBe(false);
  });

  it('brings wishes for a picture within their limits', async () => {
    const { backend } = await ask('Hello');
    await fireEvent.click(screen.getByTestId('making-image'));
    for (const [field, text, kept] of [
      ['width', '100', '104'],
      ['height', '9999', '2048'],
      ['steps', '-3', '1'],
      ['guidance', 'x', ''],
    ] as const) {
      const input = screen.getByTestId<HTMLInputElement>(`picture-${field}`);
      await fireEvent.change(input, { target: { value: text } });
      expect(input.value, field).toBe(kept);
    }
    const words = screen.getByTestId('picture-input');
    await fireEvent.input(words, { target: { value: 'x' } });
    await fireEvent.keyDown(words, { key: 'Enter' });
    const job = backend.sent('picture_send')[0]?.payload.job;
    expect(job).toMatchObject({ width: 104, height: 2048, steps: 1, guidance: 5 });
  });

  it('stops the answer with Esc', async () => {
    const { backend, input } = await ask('Hello');
    await fireEvent.keyDown(input, { key: 'Enter' });
    await fireEvent.keyDown(input, { key: 'Escape' });
    await settle();
    expect(backend.sent('chat_cancel')).toHaveLength(1);
    expect(screen.getByText('Stopped by you.')).toBeTruthy();
  });

  it('shows an error in words and asks again', async () => {
    const { backend, emit, input } = await ask('Hello');
    await fireEvent.keyDown(input, { key: 'Enter' });
    const chat = backend.sent('chat_send')[0]?.payload.chat ?? '';
    const error = { code: 'overloaded' as const, message: 'the queue is full', hint: 'wait' };
    emit({ event: 'chat', payload: { chat, update: { kind: 'failed', error } } });
    expect(screen.getByTestId('problem-card').textContent).toContain('The queue is full.');
    await fireEvent.click(screen.getByTestId('chat-retry'));
    await settle();
    expect(backend.sent('chat_send')).toHaveLength(2);
  });

  it('offers to start where nobody serves, and only there', async () => {
    const { backend, emit } = await open(snapshot('stopped'), 'playground');
    expect(screen.getByText(/Nobody is serving right now/)).toBeTruthy();
    await fireEvent.click(screen.getByTestId('chat-start'));
    expect(backend.sent('mining_start')).toHaveLength(1);
    emit({ event: 'snapshot', payload: snapshot('waiting') });
    expect(screen.queryByText(/Nobody is serving/)).toBeNull();
  });

  it('follows the answer until the reader scrolls up, and again on request', async () => {
    const { backend, emit, input, container } = await ask('Hello');
    await fireEvent.keyDown(input, { key: 'Enter' });
    const chat = backend.sent('chat_send')[0]?.payload.chat ?? '';
    const scroller = container.querySelector('.scroller') as HTMLElement;
    Object.defineProperty(scroller, 'scrollHeight', { value: 1000 });
    Object.defineProperty(scroller, 'clientHeight', { value: 300 });
    const grow = async () => {
      emit({ event: 'chat', payload: { chat, update: { kind: 'delta', text: 'more ' } } });
      await settle();
    };
    await grow();
    expect(scroller.scrollTop).toBe(1000);
    scroller.scrollTop = 200;
    await fireEvent.scroll(scroller);
    await grow();
    expect(scroller.scrollTop).toBe(200);
    await fireEvent.click(screen.getByText('Jump to the latest'));
    expect(scroller.scrollTop).toBe(1000);
  });

  it('holds the longest answer to its limits', async () => {
    const { session } = await open(snapshot('waiting'), 'playground');
    const input = screen.getByTestId<HTMLInputElement>('chat-max-tokens');
    for (const [typed, kept] of [
      ['99999', 4096],
      ['0', 1],
      ['', 1],
      ['12.9', 12],
    ] as const) {
      await fireEvent.change(input, { target: { value: typed } });
      expect(session.chat.maxTokens).toBe(kept);
    }
  });
});

describe('the models', () => {
  it('can be fetched where they are absent, with progress in words', async () => {
    const absent = { ...starter, state: { state: 'absent' as const } };
    const { backend, emit } = await open(snapshot('stopped', { models: [absent] }), 'models');
    await fireEvent.click(screen.getByTestId('model-get'));
    expect(backend.sent('model_fetch')[0]?.payload.model).toBe(starter.id);
    const state = { state: 'fetching' as const, done_bytes: 49_000_000, total_bytes: 98_000_000 };
    emit({
      event: 'snapshot',
      payload: snapshot('stopped', { models: [{ ...starter, state }] }),
    });
    expect(screen.queryByTestId('model-get')).toBeNull();
    expect(
      screen
        .getByRole('progressbar', { name: `Fetching ${starter.name}` })
        .getAttribute('aria-valuetext'),
    ).toBe('49.0 MB of 98.0 MB');
    expect(screen.getByText('50%')).toBeTruthy();
  });
});

describe('the settings', () => {
  it('show the theme on the page at once', async () => {
    const { backend } = await open(snapshot('waiting'), 'settings');
    await fireEvent.change(screen.getByTestId('theme-select'), { target: { value: 'dark' } });
    await settle();
    expect(document.documentElement.dataset.theme).toBe('dark');
    expect(backend.preferences.theme).toBe('dark');
    await fireEvent.change(screen.getByTestId('theme-select'), { target: { value: 'system' } });
    await settle();
    expect(document.documentElement.dataset.theme).toBeUndefined();
  });

  it('list the checks with what helps', async () => {
    await open(snapshot('waiting'), 'settings');
    await fireEvent.click(screen.getByTestId('doctor-run'));
    await settle();
    const checks = screen.getAllByTestId('doctor-check').map((one) => one.textContent);
    expect(checks).toHaveLength(5);
    expect(checks[0]).toContain('Could be better');
    expect(checks[0]).toContain('What helps: If this machine has an NVIDIA card');
    expect(checks[1]).not.toContain('What helps');
  });
});

describe('the window', () => {
  it('asks what closing means', async () => {
    const { backend, emit } = await open(snapshot('working'));
    emit({ event: 'close_requested' });
    await fireEvent.click(screen.getByTestId('close-tray'));
    await settle();
    expect(backend.preferences.on_close).toBe('tray');
    expect(backend.sent('window')[0]?.payload.action).toBe('hide');
    expect(screen.queryByTestId('close-dialog')).toBeNull();
  });

  it('shows grey shapes only after a while', () => {
    vi.useFakeTimers();
    render(App, { session: new Session(new FakeBackend(snapshot('stopped'))) });
    vi.advanceTimersByTime(100);
    flushSync();
    expect(screen.queryByTestId('skeleton')).toBeNull();
    vi.advanceTimersByTime(100);
    flushSync();
    expect(screen.queryByTestId('skeleton')).not.toBeNull();
  });

  it('says when the program does not answer, and tries again', async () => {
    const backend = new FakeBackend(snapshot('waiting'));
    backend.refusals.set('snapshot', { code: 'internal', message: 'the pipe is closed' });
    const session = new Session(backend);
    render(App, { session });
    await session.connect();
    flushSync();
    expect(screen.getByTestId('problem-card').textContent).toContain('does not answer');
    await fireEvent.click(screen.getByTestId('reconnect'));
    await settle();
    expect(screen.queryByTestId('problem-card')).toBeNull();
    expect(screen.getByTestId('points-today')).toBeTruthy();
  });

  it('types commands in messages as code', async () => {
    const { backend } = await open(snapshot('stopped'));
    backend.refusals.set('mining_start', {
      code: 'model_not_ready',
      message: 'no model',
      hint: 'run `neurino models` first',
    });
    await fireEvent.click(screen.getByTestId('start-button'));
    await settle();
    const card = screen.getByTestId('problem-card');
    expect(card.querySelector('code')?.textContent).toBe('neurino models');
    expect(card.textContent).toContain('Run neurino models first.');
  });

  it.each(pages.map(({ page }) => page))('has no accessibility fault on %s', async (page) => {
    const { container } = await open(snapshot('working'), page);
    // jsdom paints nothing; contrast has a test of its own.
    const rules = { 'color-contrast': { enabled: false } };
    const { violations } = await axe.run(container, { rules });
    expect(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join()}`)).toEqual([]);
  });
});
