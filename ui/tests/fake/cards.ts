// Machines with cards, for tests and for looking at pages.

import type { Device, NoCard, Snapshot } from '../../src/lib/api/types';
import { cpu, gpu, snapshot } from './samples';

const idle = { in_use: false, load_percent: null, temperature_c: null, power_w: null };

export const second: Device = {
  ...gpu,
  card: 'GPU-2',
  name: 'NVIDIA GeForce RTX 3060',
  memory_bytes: 12_884_901_888,
  memory_used_bytes: 6_120_000_000,
  load_percent: 71,
  temperature_c: 58,
  power_w: 148,
};

const processor: Device = { ...cpu, in_use: false, choice: null };

const off: Device = {
  ...second,
  ...idle,
  choice: { use: false, role: 'both' },
  note: 'Switched off in the settings.',
};

const named: Device = {
  ...gpu,
  name: 'The loud one',
  product: 'NVIDIA GeForce RTX 4090',
  choice: { use: true, role: 'pictures', name: 'The loud one' },
};

const lost: Device = {
  ...gpu,
  ...idle,
  gone: true,
  memory_used_bytes: 0,
  note: 'It does not answer any more. Neurino looks for it.',
};

function waitsFor(no_card: NoCard, sentence: string, devices: Device[]): Snapshot {
  // The rules let it mine; only the card is missing.
  const { control } = snapshot('waiting');
  const shown = snapshot('paused', { devices, control });
  return { ...shown, mining: { ...shown.mining, sentence, said: { say: 'no_card', no_card } } };
}

/** What the states of the gallery are called. */
export const rigs: Record<string, () => Snapshot> = {
  two: () => snapshot('working', { devices: [gpu, second, processor] }),
  named: () => snapshot('working', { devices: [named, off, processor] }),
  change: () => {
    const shown = snapshot('finishing', {
      devices: [gpu, { ...off, pending: true }, processor],
    });
    const sentence =
      'Finishing the last job, then going on with your change: 43 tokens, 3.1 s of 180 s.';
    return {
      ...shown,
      mining: { ...shown.mining, sentence, said: { say: 'finishing', again: true } },
    };
  },
  alloff: () =>
    waitsFor(
      { why: 'off' },
      'All cards are switched off. Switch one on in the settings, under Cards.',
      [
        { ...off, ...{ card: 'GPU-1', name: gpu.name, memory_bytes: gpu.memory_bytes } },
        off,
        processor,
      ],
    ),
  gone: () =>
    waitsFor(
      { why: 'gone', card: gpu.name, several: false, driver: null },
      `Your card does not answer any more (${gpu.name}). Looking for it; mining goes on by itself.`,
      [lost, processor],
    ),
};
