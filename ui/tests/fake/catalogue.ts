// The network's lists and the signed catalogue, as the program tells of them.

import type { CatalogueStatus, CatalogueView, ListsReport } from '../../src/lib/api/types';
import { NOW_MS } from './samples';

export const PLACES = {
  models: 'https://lists.example/models.json',
  vae: 'https://lists.example/vae.json',
  lora: '',
};

export const report: ListsReport = {
  added: ['Dreamer', 'Pastel-XL'],
  known: ['neurino-toybox-64'],
  changed: [{ model: 'Dreamer', what: 'steps 50 becomes 35' }],
  left_out: [
    {
      name: 'hermes-3-llama3.1-8b',
      reason:
        "the lists name no SHA-256 for the files of language models; the network's signed catalogue has to",
    },
    {
      name: 'openhermes-mixtral-8x7b-gptq',
      reason:
        "the lists name no SHA-256 for the files of language models; the network's signed catalogue has to",
    },
    {
      name: 'bare',
      reason: 'the list has no SHA-256 for `bare.safetensors`, so nothing could check it',
    },
  ],
};

export function listsView(changes: Partial<CatalogueView> = {}): CatalogueView {
  return { places: { models: '', vae: '', lora: '' }, report: null, ...changes };
}

export const readLists = {
  task: 'lists',
  sentence: 'The lists were read. New models: 2. Not to be used: 3.',
  problem: null,
} as const;

export const signedCatalogue: CatalogueStatus = {
  edition: { version: 7, issued_at_ms: Date.UTC(2026, 5, 3, 12) },
  looks: true,
  looking: false,
  checked_at_ms: NOW_MS - 3_600_000,
  problem: null,
};
