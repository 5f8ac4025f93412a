// A model of the person's own, as the program describes it.

import type { DataPlace, OwnModelView } from '../../src/lib/api/types';

export const OWN_PATH = '/home/ada/Downloads/Mistral-Nemo-Instruct-2407-Q4_K_M.gguf';

export function ownModel(path: string): OwnModelView {
  return {
    path,
    name: 'Mistral-Nemo-Instruct-2407-Q4_K_M',
    id: 'mistral-nemo-instruct-2407-q4_k_m',
    kind: 'text',
    arch: 'llama',
    storage: 'q4_k',
    context_tokens: 131_072,
    files: 1,
    size_bytes: 7_477_208_192,
    fits: [
      {
        device: 'NVIDIA GeForce RTX 4070',
        verdict: 'runs',
        needed_bytes: 8_600_000_000,
        available_bytes: 11_200_000_000,
        free_bytes: 10_900_000_000,
      },
    ],
    may_be: null,
  };
}

export const dataPlaces: DataPlace[] = [
  { kind: 'models', folder: '/home/ada/.local/share/neurino/models', size_bytes: 64_800_000_000 },
  { kind: 'records', folder: '/home/ada/.local/share/neurino', size_bytes: 38_200_000 },
  { kind: 'outbox', folder: '/home/ada/.local/share/neurino/outbox', size_bytes: 0 },
  { kind: 'settings', folder: '/home/ada/.config/neurino', size_bytes: 6_300 },
  { kind: 'logs', folder: '/home/ada/.local/share/neurino/logs', size_bytes: 4_100_000 },
  { kind: 'pictures', folder: '/home/ada/Pictures/Neurino', size_bytes: 12_400_000 },
  { kind: 'exports', folder: '/home/ada/Documents/Neurino', size_bytes: 0 },
];
