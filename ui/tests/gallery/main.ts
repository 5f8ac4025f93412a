// Mounts the window over the fake backend in the state that the address names.

import { flushSync, mount } from 'svelte';

import '../../src/app.css';
import App from '../../src/App.svelte';
import type { ErrorBody, MiningState, Snapshot, Theme } from '../../src/lib/api/types';
import { Session } from '../../src/features/session/session.svelte';
import type { Page } from '../../src/views/pages';
import { FakeBackend } from '../fake/backend';
import { gpu, cpu, noPoints, receipt, snapshot, starter } from '../fake/samples';

const asked = new URLSearchParams(location.search);
const page = (asked.get('page') ?? 'home') as Page;
const state = asked.get('state') ?? 'working';

/** States of the gallery beyond those of the miner. */
const special: Record<string, () => Snapshot> = {
  empty: () => snapshot('stopped', noPoints),
  gpu: () =>
    snapshot('working', {
      devices: [gpu, { ...cpu, in_use: false, note: 'Kept free for your other programs.' }],
    }),
  offline: () =>
    snapshot('waiting', {
      network: { name: 'practice', practice: true, connected: false, gateway_url: null },
    }),
  rich: () =>
    snapshot('working', {
      points: {
        llama_today: 1_234_567_891_000,
        llama_total: 98_765_432_101_234,
        jobs_today: 12_345,
        jobs_total: 1_234_567,
      },
      devices: [gpu],
      receipts: Array.from({ length: 20 }, (_, index) => receipt(index)),
    }),
};

const ANSWER = `The sky looks blue because air scatters short, blue waves of sunlight much more than long, red ones.

At dusk the light crosses more air, most of the blue is scattered away, and red is what is left.`;

const backend = new FakeBackend(special[state]?.() ?? snapshot(state as MiningState));
backend.preferences = { theme: (asked.get('theme') ?? 'system') as Theme, on_close: 'ask' };

const broken: ErrorBody = { code: 'internal', message: 'the pipe to the program is closed' };
if (asked.has('lost')) backend.refusals.set('snapshot', broken);
if (asked.has('notice')) {
  backend.refusals.set('mining_start', {
    code: 'model_not_ready',
    message: 'the starter model is not on this machine and cannot be fetched',
    hint: 'Connect to the internet once, or import the file with `neurino models import`.',
  });
}

const session = new Session(backend);
const target = document.getElementById('app');
if (target && asked.has('loading')) backend.listen = () => new Promise(() => {});
if (target) mount(App, { target, props: { session, first: page } });
await Promise.race([session.connect(), new Promise((done) => setTimeout(done, 50))]);
await act();
flushSync();
if (asked.has('axe')) await audit();

async function act(): Promise<void> {
  if (asked.has('notice')) await session.start();
  if (asked.has('gain')) backend.emit({ event: 'settled', payload: receipt(0) });
  if (asked.has('close')) backend.emit({ event: 'close_requested' });
  if (asked.has('doctor')) await session.runDoctor();
  if (asked.has('explain')) {
    flushSync();
    document.querySelector<HTMLElement>('[data-testid=receipt-explain]')?.click();
  }
  const chat = asked.get('chat');
  if (chat) await converse(chat);
}

async function converse(how: string): Promise<void> {
  const ask = async (question: string) => {
    session.chat.draft = question;
    await session.chat.send();
    return session.chat.turns[session.chat.turns.length - 1]?.id ?? '';
  };
  const turns = how === 'long' ? 6 : 1;
  for (let n = 0; n < turns; n += 1) {
    const chat = await ask('Explain in two sentences why the sky is blue.');
    const usage = { prompt_tokens: 38, completion_tokens: 67 };
    session.chat.update(chat, { kind: 'delta', text: ANSWER });
    session.chat.update(chat, { kind: 'done', usage, duration_ms: 3140 });
    session.receive({
      event: 'settled',
      payload: receipt(0, { event: `e${n}`, usage, model: session.chat.model ?? starter.id }),
    });
  }
  const chat = await ask('Write a short poem about a graphics card at night.');
  if (how === 'queued') session.chat.update(chat, { kind: 'queued' });
  if (how === 'streaming' || how === 'cancelled') {
    session.chat.update(chat, {
      kind: 'delta',
      text: 'The fans are low, the room is blue,\na thousand cores hum something',
    });
  }
  if (how === 'cancelled') await session.chat.cancel();
  if (how === 'failed') {
    session.chat.update(chat, {
      kind: 'failed',
      error: {
        code: 'context_too_long',
        message: 'the conversation is longer than the model can read (2,301 of 2,048 tokens)',
        hint: 'Start a new chat or choose a shorter answer under Advanced.',
      },
    });
  }
}

/** Runs axe and leaves its findings in the page for whoever reads it without eyes. */
async function audit(): Promise<void> {
  const { default: axe } = await import('axe-core');
  await new Promise((done) => setTimeout(done, 400));
  const { violations } = await axe.run(document);
  const findings = document.createElement('pre');
  findings.id = 'axe';
  findings.textContent = violations
    .map((v) => `AXE ${v.impact} ${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(' | ')}`)
    .concat(`AXE done, ${violations.length} violations`)
    .join('\n');
  document.body.append(findings);
}
