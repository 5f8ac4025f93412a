// Mounts the window over the fake backend in the state that the address names.

import { flushSync, mount } from 'svelte';

import '../../src/app.css';
import Root from '../../src/Root.svelte';
import type {
  ErrorBody,
  MiningState,
  OnboardingStep,
  Snapshot,
  Theme,
} from '../../src/lib/api/types';
import { Session } from '../../src/features/session/session.svelte';
import type { Page } from '../../src/views/pages';
import type { EarningsView } from '../../src/features/earnings/ledger.svelte';
import { FakeBackend } from '../fake/backend';
import { fullDisk, hot } from '../fake/alerts';
import { rigs } from '../fake/cards';
import { PLACES, listsView, readLists, report, signedCatalogue } from '../fake/catalogue';
import { powers } from '../fake/power';
import { byHand, installing, ready, takenBack, updateView } from '../fake/update';
import { nothing, overview, troubled } from '../fake/ledger';
import { guideView, richWallet } from '../fake/wallet';
import { anyway, coolingDown, gamePaused, rulesView, snoozed } from '../fake/control';
import {
  asked as wanted,
  cpu,
  gpu,
  library,
  models,
  noPoints,
  pictureReceipt,
  receipt,
  snapshot,
  starter,
} from '../fake/samples';

const asked = new URLSearchParams(location.search);
const page = (asked.get('page') ?? 'home') as Page;
const state = asked.get('state') ?? 'working';

/** States of the gallery beyond those of the miner. */
const special: Record<string, () => Snapshot> = {
  ...rigs,
  empty: () => snapshot('stopped', noPoints),
  gpu: () =>
    snapshot('working', {
      devices: [
        gpu,
        { ...cpu, in_use: false, note: 'Not used: the settings choose another device.' },
      ],
    }),
  alerts: () =>
    snapshot('working', { alerts: [hot, fullDisk], devices: [{ ...gpu, limit_w: 320 }] }),
  update: () => snapshot('working', { update: ready }),
  'update-by-hand': () => snapshot('working', { update: byHand }),
  updating: () => snapshot('finishing', { update: installing }),
  'taken-back': () => snapshot('waiting', { update: takenBack }),
  cooldown: () => paused(coolingDown(Date.now() + 161_000)),
  snoozed: () => paused(snoozed(Date.now() + 3_540_000)),
  anyway: () => snapshot('working', { control: { decision: anyway, gave_back: null } }),
  'model-notices': () =>
    snapshot('stopped', {
      library: {
        ...library,
        models: library.models.map((one, n) => ({
          ...one,
          newer: n === 0 ? { bytes: 5_200_000_000, seconds: 640 } : null,
          unreadable: n === 1 ? { file: 'weights.gguf', why: 'Input/output error' } : null,
        })),
      },
    }),
  offline: () =>
    snapshot('waiting', {
      network: { name: 'practice', practice: true, connected: false, gateway_url: null },
    }),
  both: () =>
    snapshot('working', {
      points: {
        llama_today: 1_254_000,
        llama_total: 12_483_500,
        waifu_today: 31_250,
        waifu_total: 46_875,
        jobs_today: 11,
        jobs_total: 90,
      },
      receipts: [pictureReceipt(0), receipt(1), receipt(2), pictureReceipt(3), receipt(4)],
    }),
  downloads: () =>
    snapshot('waiting', {
      models: models.map((model, n) =>
        n === 4 || n === 3
          ? { ...model, state: { state: 'absent' as const }, problem: null }
          : model,
      ),
      library: {
        ...library,
        queue: [
          {
            model: 'dolphin-2.9-llama3-8b',
            state: 'running',
            done_bytes: 3_120_443_000,
            total_bytes: 8_540_770_304,
            bytes_per_s: 11_900_000,
            seconds_left: 455,
            problem: null,
          },
          {
            model: 'hermes-3-llama3.1-8b',
            state: 'paused',
            done_bytes: 812_000_000,
            total_bytes: 8_540_000_000,
            bytes_per_s: null,
            seconds_left: null,
            problem: null,
          },
          {
            model: 'openhermes-mixtral-8x7b-gptq',
            state: 'failed',
            done_bytes: 0,
            total_bytes: 23_810_000_000,
            bytes_per_s: null,
            seconds_left: null,
            problem: {
              code: 'model_not_ready',
              message: "the model's web server answered 403 (it wants a sign-in for this file)",
              hint: 'Accept its terms with your browser, download the file there, and take it over with `neurino models import`.',
            },
          },
        ],
      },
    }),
  demand: () =>
    snapshot('waiting', {
      network: { name: 'club.example', practice: false, connected: true, gateway_url: null },
      models: models.map((model) => ({ ...model, problem: null })),
      library: {
        ...library,
        models: library.models.map((known, n) => ({ ...known, ...wanted[n] })),
      },
    }),
  night: () =>
    snapshot('stopped', {
      library: {
        ...library,
        resting: 'Downloads run from 23:00 to 07:00.',
        settings: {
          cap_bytes: 60_000_000_000,
          bytes_per_s_max: 5_000_000,
          connections: 2,
          window: { from_minute: 1380, until_minute: 420 },
        },
        queue: [
          {
            model: 'hermes-3-llama3.1-8b',
            state: 'waiting',
            done_bytes: 0,
            total_bytes: 8_540_000_000,
            bytes_per_s: null,
            seconds_left: null,
            problem: null,
          },
        ],
      },
    }),
  full: () =>
    snapshot('stopped', {
      library: {
        ...library,
        used_bytes: 64_800_000_000,
        settings: { ...library.settings, cap_bytes: 60_000_000_000 },
        clean_up: ['neurino-toybox-64'],
        outcome: {
          task: 'scrub',
          sentence: '14 files read, all as they should be.',
          problem: null,
        },
      },
    }),
  lists: () => snapshot('stopped', { library: { ...library, catalogue: signedCatalogue } }),
  'lists-read': () =>
    snapshot('stopped', {
      library: { ...library, catalogue: signedCatalogue, outcome: readLists },
    }),
  'lists-reading': () =>
    snapshot('stopped', {
      library: {
        ...library,
        activity: {
          task: 'lists',
          done_bytes: 0,
          total_bytes: 0,
          asked: { done: 12, total: 40 },
        },
      },
    }),
  'lists-failed': () =>
    snapshot('stopped', {
      library: {
        ...library,
        catalogue: {
          ...signedCatalogue,
          problem: {
            code: 'model_not_ready',
            message: 'the catalogue is refused: it is version 2, and version 7 was here',
          },
        },
        outcome: {
          task: 'lists',
          sentence: null,
          problem: {
            code: 'invalid_request',
            message:
              'the list of models cannot be used: it is not a list in JSON as the network has it: expected value at line 1 column 1',
            hint: 'Check the address; or save the list with your browser, and choose that file.',
          },
        },
      },
    }),
  moving: () =>
    snapshot('stopped', {
      library: {
        ...library,
        activity: {
          task: 'move',
          done_bytes: 21_300_000_000,
          total_bytes: 64_800_000_000,
          asked: null,
        },
      },
    }),
  rich: () =>
    snapshot('working', {
      points: {
        llama_today: 1_234_567_891_000,
        llama_total: 98_765_432_101_234,
        waifu_today: 0,
        waifu_total: 0,
        jobs_today: 12_345,
        jobs_total: 1_234_567,
      },
      devices: [gpu],
      receipts: Array.from({ length: 20 }, (_, index) => receipt(index)),
    }),
};

/** Paused for this reason. */
function paused(decision: typeof gamePaused): Snapshot {
  const shown = snapshot('paused');
  const gave_back = { bytes: 10_522_669_875, duration_ms: 940, jobs: 1 };
  return {
    ...shown,
    mining: { ...shown.mining, sentence: decision.sentence, said: { say: 'decided' } },
    control: { decision, gave_back: decision.state === 'paused' ? gave_back : null },
  };
}

const ANSWER = `The sky looks blue because air scatters short, blue waves of sunlight much more than long, red ones.

At dusk the light crosses more air, most of the blue is scattered away, and red is what is left.`;

const backend = new FakeBackend(special[state]?.() ?? snapshot(state as MiningState));
backend.preferences = {
  theme: (asked.get('theme') ?? 'system') as Theme,
  on_close: 'ask',
  language: asked.get('lang') === 'de' ? 'german' : 'english',
};

backend.update = updateView({
  status: backend.snapshot.update,
  keeper: state === 'update-by-hand' ? 'person' : state === 'stopped' ? 'nobody' : 'itself',
  back_to: state === 'working' ? '0.0.9' : null,
});
if (state === 'lists-read') backend.lists = listsView({ places: PLACES, report });
backend.overview = { empty: nothing, troubled }[asked.get('ledger') ?? state] ?? overview;
if (asked.has('wallet')) backend.wallet = richWallet();
if (asked.get('filter') === 'on') {
  backend.filter = { on: true, words: ['gore', 'severed head', 'Kettensägenmassaker'] };
} else if (asked.has('filter')) backend.filter = { on: asked.get('filter') === 'empty', words: [] };

const step = asked.get('guide');
if (step) backend.guide = guideView({ open: true, step: step as OnboardingStep });
const rules = asked.get('rules');
if (rules === 'week') {
  const week = rulesView.rules.week.map((row, day) => (day < 5 ? 'cccccc............mmmmcc' : row));
  const wanted = { ...rulesView.rules, when: 'away_on_schedule' as const, week };
  backend.rules = { ...rulesView, rules: wanted, seen: 'mpv' };
}
if (rules === 'blind') {
  const none = Object.keys(rulesView.abilities).map((name) => [name, false]);
  const wanted = { ...rulesView.rules, when: 'away' as const };
  backend.rules = { ...rulesView, rules: wanted, abilities: Object.fromEntries(none) };
}

const power = asked.get('power');
if (power) backend.power = powers[power] ?? backend.power;
if (asked.has('gentle')) {
  backend.rules = { ...rulesView, rules: { ...rulesView.rules, gentle: true } };
}

const broken: ErrorBody = { code: 'internal', message: 'the pipe to the program is closed' };
if (asked.has('lost')) backend.refusals.set('snapshot', broken);
if (asked.has('notice')) {
  backend.refusals.set('mining_start', {
    code: 'model_not_ready',
    message: 'the starter model is not on this machine and cannot be fetched',
    hint: 'Connect to the internet once, or import the file with `neurino models import`.',
  });
}

// What is looked at may be folded away.
localStorage.setItem('neurino-advanced', asked.has('section') ? 'yes' : 'no');
const session = new Session(backend);
const target = document.getElementById('app');
if (target && asked.has('loading')) backend.listen = () => new Promise(() => {});
if (target) mount(Root, { target, props: { session, first: page } });
await Promise.race([session.connect(), new Promise((done) => setTimeout(done, 50))]);
await act();
flushSync();
if (asked.has('axe')) await audit();

async function act(): Promise<void> {
  if (asked.has('notice')) await session.start();
  if (asked.has('gain')) backend.emit({ event: 'settled', payload: receipt(0) });
  const press = asked.get('press');
  // Several, one after the other, are pressed by walletActs.
  if (press && !/[,=]/.test(press)) {
    flushSync();
    document.querySelector<HTMLElement>(`[data-testid=${press}]`)?.click();
  }
  if (asked.has('bottom')) {
    flushSync();
    document.querySelector('main')?.scrollTo(0, 1e6);
  }
  if (asked.has('close')) backend.emit({ event: 'close_requested' });
  if (asked.has('menu')) document.querySelector<HTMLElement>('[data-testid=pause-menu]')?.click();
  if (asked.has('decisions')) {
    flushSync();
    document.querySelector<HTMLElement>('[data-testid=open-decisions]')?.click();
    await new Promise((done) => setTimeout(done, 50));
  }
  const section = asked.get('section');
  if (section) {
    await new Promise((done) => setTimeout(done, 50));
    document.querySelector(`[data-section=${section}]`)?.scrollIntoView();
  }
  if (asked.has('doctor')) await session.runDoctor();
  if (asked.has('log')) session.journal.toggle();
  const view = asked.get('view');
  if (view) session.ledger.show(view as EarningsView);
  if (page === 'earnings') await session.ledger.refresh();
  if (asked.has('table')) {
    flushSync();
    document.querySelector<HTMLElement>('[data-testid$=as-table]')?.click();
  }
  if (asked.has('explain')) {
    flushSync();
    document.querySelector<HTMLElement>('[data-testid=receipt-explain]')?.click();
  }
  await walletActs();
  const picture = asked.get('picture');
  if (picture) await draw(picture);
  const chat = asked.get('chat');
  if (chat) await converse(chat);
}

/** Things that only a press in the wallet or the guide shows. */
async function walletActs(): Promise<void> {
  const find = (id: string) => document.querySelector<HTMLElement>(`[data-testid=${id}]`);
  const rest = () => new Promise((done) => setTimeout(done, 20));
  for (const press of (asked.get('press') ?? '').split(',').filter(Boolean)) {
    flushSync();
    const [id = '', text] = press.split('=');
    const field = find(id);
    if (field instanceof HTMLInputElement && text) {
      field.value = text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
    } else if (id === 'words-hold') {
      field?.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }));
    } else {
      field?.click();
    }
    await rest();
  }
  const top = asked.get('top');
  if (top) {
    flushSync();
    find(top)?.scrollIntoView({ block: 'start' });
  }
}

/** `empty`, `drawing`, `failed` or `done`; the sample is 64 x 64 pixels. */
async function draw(how: string): Promise<void> {
  const { studio } = session;
  session.making = 'image';
  if (how === 'empty') return;
  studio.draft = 'a red circle on a blue background';
  await studio.send();
  const id = studio.pictures[0]?.id ?? '';
  studio.update(id, { kind: 'queued' });
  if (how === 'failed') {
    const error = { code: 'no_node_available' as const, message: 'no machine makes pictures now' };
    studio.update(id, { kind: 'failed', error });
    return;
  }
  studio.update(id, { kind: 'preview', png: sample() });
  if (how === 'drawing') return;
  studio.update(id, { kind: 'done', png: sample(), duration_ms: 1640 });
  session.receive({ event: 'settled', payload: pictureReceipt() });
}

/** A red circle on blue, drawn here. */
function sample(): string {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 64;
  const context = canvas.getContext('2d');
  if (!context) return '';
  context.fillStyle = '#3f6fb5';
  context.fillRect(0, 0, 64, 64);
  context.fillStyle = '#c8402f';
  context.arc(32, 32, 20, 0, 7);
  context.fill();
  return canvas.toDataURL('image/png').split(',')[1] ?? '';
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
