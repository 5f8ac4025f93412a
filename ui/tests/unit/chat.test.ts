import { beforeEach, describe, expect, it } from 'vitest';

import { Chat } from '../../src/features/chat/chat.svelte';
import type { Receipt, Usage } from '../../src/lib/api/types';
import { FakeBackend } from '../fake/backend';
import { IDENTITY, models, receipt, snapshot, starter } from '../fake/samples';

const usage: Usage = { prompt_tokens: 38, completion_tokens: 67 };

let backend: FakeBackend;
let chat: Chat;
let nowMs: number;

beforeEach(() => {
  nowMs = 1_000_000;
  backend = new FakeBackend(snapshot('waiting'));
  chat = new Chat(backend, () => nowMs);
  chat.models = models;
  chat.payments.identity = IDENTITY;
});

async function ask(question: string): Promise<string> {
  chat.draft = question;
  await chat.send();
  return last().id;
}

function last() {
  const turn = chat.turns[chat.turns.length - 1];
  if (!turn) throw new Error('the conversation is empty');
  return turn;
}

function paid(changes: Partial<Receipt> = {}): Receipt {
  return receipt(0, { usage, ...changes });
}

describe('asking', () => {
  it('sends the trimmed question with its settings and empties the draft', async () => {
    chat.temperature = 0.2;
    chat.maxTokens = 64;
    const id = await ask('  Hello?\n');
    expect(backend.sent('chat_send')).toEqual([
      {
        cmd: 'chat_send',
        payload: {
          chat: id,
          model: starter.id,
          messages: [{ role: 'user', content: 'Hello?' }],
          temperature: 0.2,
          max_tokens: 64,
        },
      },
    ]);
    expect(chat.draft).toBe('');
    expect(last().status).toBe('sending');
  });

  it('does not send blanks', async () => {
    chat.draft = '   \n';
    await chat.send();
    expect(backend.commands).toEqual([]);
    expect(chat.turns).toEqual([]);
  });

  it('keeps a second question in the draft while one is under way', async () => {
    await ask('First');
    chat.draft = 'Second';
    await chat.send();
    expect(backend.sent('chat_send')).toHaveLength(1);
    expect(chat.draft).toBe('Second');
  });

  it('takes the readiest model unless one was picked', () => {
    expect(chat.model).toBe(starter.id);
    chat.model = 'hermes-3-llama3.1-8b';
    expect(chat.model).toBe('hermes-3-llama3.1-8b');
    chat.models = [starter];
    expect(chat.model).toBe(starter.id);
  });

  it('sends what was said before, without questions that got no answer', async () => {
    const first = await ask('One');
    chat.update(first, { kind: 'delta', text: 'Uno' });
    chat.update(first, { kind: 'done', usage, duration_ms: 10 });
    const second = await ask('Two');
    chat.update(second, { kind: 'failed', error: { code: 'overloaded', message: 'full' } });
    await ask('Three');
    expect(backend.sent('chat_send')[2]?.payload.messages).toEqual([
      { role: 'user', content: 'One' },
      { role: 'assistant', content: 'Uno' },
      { role: 'user', content: 'Three' },
    ]);
  });

  it('fails the turn when the program refuses', async () => {
    backend.refusals.set('chat_send', { code: 'unknown_model', message: 'no such model' });
    await ask('Hello');
    expect(last().status).toBe('failed');
    expect(last().error?.code).toBe('unknown_model');
    expect(chat.running).toBeNull();
  });
});

describe('an answer', () => {
  it('goes from sending over queued and answering to done', async () => {
    const id = await ask('Hello');
    chat.update(id, { kind: 'queued' });
    expect(last().status).toBe('queued');
    chat.update(id, { kind: 'delta', text: 'Hi ' });
    chat.update(id, { kind: 'delta', text: 'there\n' });
    expect(last().status).toBe('answering');
    expect(last().answer).toBe('Hi there\n');
    chat.update(id, { kind: 'done', usage, duration_ms: 3140 });
    expect(last()).toMatchObject({ status: 'done', usage, durationMs: 3140 });
    expect(chat.running).toBeNull();
  });

  it('does not fall back to queued once text has come', async () => {
    const id = await ask('Hello');
    chat.update(id, { kind: 'delta', text: 'Hi' });
    chat.update(id, { kind: 'queued' });
    expect(last().status).toBe('answering');
  });

  it('keeps what has come when it breaks off', async () => {
    const id = await ask('Hello');
    chat.update(id, { kind: 'delta', text: 'Hi' });
    chat.update(id, { kind: 'failed', error: { code: 'engine_failed', message: 'gone' } });
    expect(last()).toMatchObject({ status: 'failed', answer: 'Hi' });
  });

  it('ignores steps of unknown and of ended answers', async () => {
    const id = await ask('Hello');
    chat.update('somebody-else', { kind: 'delta', text: 'x' });
    await chat.cancel();
    chat.update(id, { kind: 'delta', text: 'late' });
    chat.update(id, { kind: 'done', usage, duration_ms: 1 });
    expect(last()).toMatchObject({ status: 'cancelled', answer: '' });
  });

  it('is withdrawn by name, and a refused withdrawal changes nothing', async () => {
    const id = await ask('Hello');
    backend.refusals.set('chat_cancel', { code: 'not_found', message: 'already done' });
    await chat.cancel();
    expect(backend.sent('chat_cancel')[0]?.payload.chat).toBe(id);
    expect(last().status).toBe('cancelled');
    await chat.cancel();
    expect(backend.sent('chat_cancel')).toHaveLength(1);
  });

  it('counts as stopped, not failed, when the network confirms a withdrawal', async () => {
    const id = await ask('Hello');
    chat.update(id, { kind: 'failed', error: { code: 'cancelled', message: 'withdrawn' } });
    expect(last().status).toBe('cancelled');
    expect(last().error).toBeNull();
  });

  it('is asked for again under a new name, in place of the failed turn', async () => {
    const id = await ask('Hello');
    chat.update(id, { kind: 'failed', error: { code: 'no_node_available', message: 'nobody' } });
    await chat.retry();
    expect(chat.turns).toHaveLength(1);
    expect(last().id).not.toBe(id);
    expect(backend.sent('chat_send')[1]?.payload.messages).toEqual([
      { role: 'user', content: 'Hello' },
    ]);
  });

  it('is withdrawn when the conversation is cleared', async () => {
    await ask('Hello');
    await chat.clear();
    expect(chat.turns).toEqual([]);
    expect(backend.sent('chat_cancel')).toHaveLength(1);
  });
});

describe('earnings', () => {
  async function answered(): Promise<string> {
    const id = await ask('Hello');
    chat.update(id, { kind: 'delta', text: 'Hi' });
    chat.update(id, { kind: 'done', usage, duration_ms: 10 });
    return id;
  }

  it('match a receipt that comes after the answer', async () => {
    await answered();
    chat.settled(paid());
    expect(last().earned).toBe(105_000);
  });

  it('match a receipt that came before the answer', async () => {
    const id = await ask('Hello');
    chat.settled(paid());
    expect(last().earned).toBeNull();
    chat.update(id, { kind: 'done', usage, duration_ms: 10 });
    expect(last().earned).toBe(105_000);
  });

  it.each([
    ['of another size', paid({ usage: { prompt_tokens: 38, completion_tokens: 68 } })],
    ['of another model', paid({ model: 'other' })],
    ['of another machine', paid({ node: '0x0000000000000000000000000000000000000000' })],
  ])('leave out a receipt %s', async (_, other) => {
    await answered();
    chat.settled(other);
    expect(last().earned).toBeNull();
  });

  it('leave out a receipt that comes much later', async () => {
    await answered();
    nowMs += 31_000;
    chat.settled(paid());
    expect(last().earned).toBeNull();
  });

  it('count each receipt once', async () => {
    await answered();
    chat.settled(paid());
    await answered();
    expect(chat.turns.map((turn) => turn.earned)).toEqual([105_000, null]);
  });
});
