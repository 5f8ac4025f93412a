// Snapshots as the program would push them, for tests and for looking at the pages.

import type {
  Check,
  Device,
  LibraryModel,
  LibraryStatus,
  MiningSaying,
  MiningState,
  ModelDemand,
  ModelStatus,
  Receipt,
  Snapshot,
} from '../../src/lib/api/types';

import { controlIn } from './control';

export const IDENTITY = '0x1f9a3c5be27d480f6a1b92c3d4e5f60718293a4b';
/** 22 November 2026, 14:05:00 UTC: a fixed now, so that pictures and tests repeat. */
export const NOW_MS = Date.UTC(2026, 10, 22, 14, 5, 0);

export const starter: ModelStatus = {
  id: 'smollm2-135m-instruct',
  name: 'SmolLM2 135M Instruct',
  summary: 'A tiny starter model: answers in seconds on any machine, and often wrongly.',
  kind: 'text',
  image: null,
  size_bytes: 98_239_872,
  licence: 'Apache-2.0',
  state: { state: 'loaded' },
  problem: null,
};

export const painter: ModelStatus = {
  id: 'neurino-toybox-64',
  name: 'Neurino Toybox',
  summary: 'Draws small, simple pictures on any machine.',
  kind: 'image',
  image: { width: 64, height: 64, steps: 20, guidance: 5, negative_prompt: '', side_multiple: 8 },
  size_bytes: 16_400_000,
  licence: 'Apache-2.0',
  state: { state: 'ready' },
  problem: null,
};

export const models: ModelStatus[] = [
  starter,
  painter,
  {
    id: 'dolphin-2.9-llama3-8b',
    name: 'Dolphin 2.9 Llama 3 8B',
    summary: 'A capable assistant for conversations and code. Needs a card with 12 GB.',
    kind: 'text',
    image: null,
    size_bytes: 8_540_770_304,
    licence: 'LicenseRef-Llama-3',
    state: { state: 'fetching', done_bytes: 3_120_443_000, total_bytes: 8_540_770_304 },
    problem: null,
  },
  {
    id: 'hermes-3-llama3.1-8b',
    name: 'Hermes 3 Llama 3.1 8B',
    summary: 'Follows instructions closely and keeps long conversations together.',
    kind: 'text',
    image: null,
    size_bytes: 8_540_000_000,
    licence: 'LicenseRef-Llama-3.1',
    state: { state: 'absent' },
    problem: null,
  },
  {
    id: 'openhermes-mixtral-8x7b-gptq',
    name: 'OpenHermes Mixtral 8x7B',
    summary: 'The largest text model of the network. Needs a card with 32 GB.',
    kind: 'text',
    image: null,
    size_bytes: 23_810_000_000,
    licence: 'Apache-2.0',
    state: { state: 'absent' },
    problem: {
      code: 'unreachable',
      message: 'cannot connect to models.example',
      hint: 'Neurino tries again by itself and goes on where it stopped.',
    },
  },
];

const GIB = 2 ** 30;

/** What the library knows of a model: a verdict for a card of 12 GB, and when it was used. */
function known(
  model: ModelStatus,
  verdict: LibraryModel['fits'][number]['verdict'],
  needed_gib: number,
  changes: Partial<LibraryModel> = {},
): LibraryModel {
  return {
    model: model.id,
    disk_bytes: model.state.state === 'absent' ? 0 : model.size_bytes,
    used_ms: model.state.state === 'absent' ? null : NOW_MS - 60_000,
    own: false,
    damaged: null,
    unreadable: null,
    newer: null,
    factor: 1_000_000,
    fits: [
      {
        device: 'NVIDIA GeForce RTX 3060',
        verdict,
        needed_bytes: needed_gib * GIB,
        available_bytes: 11.2 * GIB,
        free_bytes: 10 * GIB,
      },
    ],
    demand: null,
    estimate: null,
    ...changes,
  };
}

/** What a network that says so wants of the sample models: little, much, nothing, something. */
export const asked: readonly Partial<LibraryModel>[] = [
  {
    demand: demand(0, { jobs: 1_284, waiting: 3, nodes: 41 }),
    estimate: { points_per_hour_micro: 12_482_731, method: { by: 'own', jobs: 37 } },
  },
  {
    demand: demand(1, { jobs: 96, waiting: 12, nodes: 4, points_per_node_hour_micro: 48_120_300 }),
    estimate: { points_per_hour_micro: 48_120_300, method: { by: 'network' } },
  },
  { demand: demand(2, { nodes: 2 }) },
  { demand: demand(3, { jobs: 1, nodes: 1, minutes: 23 }) },
  { demand: demand(4, { waiting: 1 }) },
];

function demand(model: number, changes: Partial<ModelDemand>): ModelDemand {
  return {
    model: models[model]?.id ?? '',
    minutes: 60,
    jobs: 0,
    waiting: 0,
    nodes: 0,
    points_per_node_hour_micro: null,
    ...changes,
  };
}

/** The library of the sample models, with nothing under way. */
export const library: LibraryStatus = {
  folder: '/home/ada/.local/share/neurino/models',
  away: null,
  used_bytes: 114_700_000,
  free_bytes: 182_400_000_000,
  settings: { cap_bytes: null, bytes_per_s_max: null, connections: 2, window: null },
  models: models.map((model, index) => {
    if (index === 0) return known(model, 'runs', 0.9);
    if (index === 1) return known(model, 'runs', 0.3, { used_ms: NOW_MS - 5 * 86_400_000 });
    if (index === 4) return known(model, 'no', 25.4);
    return known(model, 'slower_four_bit', 5.2, { factor: 240_000 });
  }),
  queue: [],
  resting: null,
  waits_for: null,
  activity: null,
  outcome: null,
  clean_up: [],
  catalogue: {
    edition: null,
    looks: false,
    looking: false,
    checked_at_ms: null,
    problem: null,
  },
};

export const cpu: Device = {
  card: 'processor',
  name: 'AMD Ryzen 7 7800X3D 8-Core Processor',
  product: null,
  choice: { use: true, role: 'both' },
  gone: false,
  pending: false,
  kind: 'cpu',
  in_use: true,
  note: null,
  memory_bytes: 33_567_965_184,
  memory_used_bytes: 11_811_160_064,
  load_percent: 38.4,
  temperature_c: 61,
  memory_temperature_c: null,
  power_w: null,
  limit_w: null,
};

export const gpu: Device = {
  card: 'GPU-1',
  name: 'NVIDIA GeForce RTX 4090',
  product: null,
  choice: { use: true, role: 'both' },
  gone: false,
  pending: false,
  kind: 'gpu',
  in_use: true,
  note: null,
  memory_bytes: 25_757_220_864,
  memory_used_bytes: 9_234_567_168,
  load_percent: 94,
  temperature_c: 67,
  memory_temperature_c: null,
  power_w: 318.4,
  limit_w: null,
};

/** The receipt of a job, `index` jobs ago. */
export function receipt(index = 0, changes: Partial<Receipt> = {}): Receipt {
  const prompt = 38 + ((index * 17) % 60);
  const completion = 67 + ((index * 29) % 140);
  const units = prompt + completion;
  const id = (index + 1).toString(16).padStart(12, '0');
  return {
    event: `01935000-0000-7000-8000-${id}`,
    job: `01934fff-7a31-7c10-9b1e-${id}`,
    lease: `01934fff-9000-7000-8000-${id}`,
    node: `${IDENTITY}-desk`,
    model: starter.id,
    usage: { prompt_tokens: prompt, completion_tokens: completion },
    rule_set: 'practice1',
    quote: {
      points: 'llama',
      units,
      base_micro: units * 1000,
      factor: 1_000_000,
      multiplier: 1_000_000,
      amount_micro: units * 1000,
    },
    digest: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
    duration_ms: 3140 + index * 310,
    settled_at_ms: NOW_MS - 21_000 - index * 137_000,
    network: 'practice',
    coordinator: '0x7be8076f4ea4a4ad08075c2508e481d6c946d12b',
    signature: `0x${'4b1d9e07c2'.repeat(13)}`,
    ...changes,
  };
}

/** The receipt of a picture of the image starter model. */
export function pictureReceipt(index = 0, changes: Partial<Receipt> = {}): Receipt {
  const units = 64 * 64 * 20;
  return receipt(index, {
    model: painter.id,
    usage: { prompt_tokens: 0, completion_tokens: 0 },
    rule_set: 'practice3',
    quote: {
      points: 'waifu',
      units,
      base_micro: 15_625,
      factor: 1_000_000,
      multiplier: 1_000_000,
      amount_micro: 15_625,
    },
    ...changes,
  });
}

/** A picture of one pixel. */
export const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGPgM9oAAAGaAMqgXk8UAAAAAElFTkSuQmCC';

const sentences: Record<MiningState, string> = {
  stopped: 'Mining is stopped. Press Start to serve jobs and earn points.',
  starting: 'Loading SmolLM2 135M Instruct: 61 of 98 MB checked.',
  waiting: 'Connected to the practice network and waiting for the next job.',
  working: 'Running a text job for the practice network: 43 tokens, 3.1 s of 180 s',
  finishing: 'Finishing the running job, then stopping: 43 tokens, 3.1 s of 180 s',
  paused: 'Paused: doom is running. Resumes 3 min after it is gone.',
  needs_you: 'Mining cannot go on: the model file is damaged.',
};

const sayings: Record<MiningState, MiningSaying> = {
  stopped: { say: 'stopped' },
  starting: {
    say: 'starting',
    what: {
      what: 'loading',
      model: 'smollm2-135m-instruct',
      percent: null,
      warm_percent: null,
    },
    problem: null,
  },
  waiting: { say: 'waiting', notice: null, no_job: null },
  working: { say: 'working' },
  finishing: { say: 'finishing', again: false },
  paused: { say: 'decided' },
  needs_you: {
    say: 'problem',
    error: { code: 'model_unreadable', message: 'the model file is damaged' },
  },
};

/** A snapshot in the given state. */
export function snapshot(state: MiningState, changes: Partial<Snapshot> = {}): Snapshot {
  const atWork = state === 'working' || state === 'finishing';
  return {
    version: '0.1.0',
    alerts: [],
    update: { status: 'none' },
    network: {
      name: 'practice',
      practice: true,
      connected: state !== 'stopped',
      gateway_url: 'http://127.0.0.1:43110/v1',
    },
    mining: {
      state,
      sentence: sentences[state],
      said: sayings[state],
      since_ms: NOW_MS - 754_000,
      problem:
        state === 'needs_you'
          ? {
              code: 'model_unreadable',
              message:
                '`smollm2-135m-instruct` is damaged: it should have 98239872 bytes and has 98239000; it was set aside, get the model again',
              hint: 'fetch the model again',
            }
          : null,
    },
    control: controlIn(state),
    points: {
      llama_today: 1_254_000,
      llama_total: 12_483_500,
      waifu_today: 0,
      waifu_total: 0,
      jobs_today: 9,
      jobs_total: 87,
    },
    devices: [cpu],
    job: atWork
      ? {
          job: '01934fff-7a31-7c10-9b1e-00000000ffff',
          kind: 'text',
          model: starter.id,
          stage: 'running',
          done: 43,
          of: 256,
          elapsed_ms: 3140,
          budget_ms: 180_000,
          estimate_ms: 12_400,
          jobs: 1,
        }
      : null,
    models:
      state === 'starting'
        ? [
            {
              ...starter,
              state: { state: 'fetching', done_bytes: 61_000_000, total_bytes: 98_239_872 },
            },
            ...models.slice(3, 4),
          ]
        : models,
    library,
    receipts: Array.from({ length: 6 }, (_, index) => receipt(index)),
    identity: IDENTITY,
    ...changes,
  };
}

export const noPoints: Partial<Snapshot> = {
  points: {
    llama_today: 0,
    llama_total: 0,
    waifu_today: 0,
    waifu_total: 0,
    jobs_today: 0,
    jobs_total: 0,
  },
  receipts: [],
};

export const checks: Check[] = [
  {
    name: 'GPU driver',
    status: 'warn',
    finding: 'No NVIDIA driver is installed, so jobs run on the processor.',
    fix: "If this machine has an NVIDIA card, install NVIDIA's driver and restart.",
  },
  {
    name: 'Video memory',
    status: 'ok',
    finding: 'No video memory; 31.3 GiB of main memory, 20.3 GiB free.',
    fix: null,
  },
  {
    name: 'Disk',
    status: 'ok',
    finding: '182.4 GiB free in /home/ada/.local/share/neurino/models.',
    fix: null,
  },
  {
    name: 'Key store',
    status: 'fail',
    finding:
      'The identity key cannot be opened: the key store of the operating system did not answer within 5000 ms; unlock it and try again.',
    fix: 'nothing was overwritten; put the key back where it was',
  },
  {
    name: 'Network',
    status: 'ok',
    finding: 'The practice network runs on this machine and needs no internet.',
    fix: null,
  },
];
