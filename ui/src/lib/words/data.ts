// The words about what Neurino keeps on this machine; part of the catalogue in strings.ts.

import type { DataKind } from '../api/types';

const kinds: Record<DataKind, string> = {
  models: 'Models',
  records: 'Identity key, wallet, receipts, records',
  outbox: 'Finished results on their way',
  settings: 'Settings',
  logs: 'Logs',
  pictures: 'Pictures you kept',
  exports: 'Exports you asked for',
};

export const data = {
  title: 'Files on this machine',
  intro:
    'Everything Neurino writes is in these folders. Uninstalling leaves them unless you say otherwise.',
  kinds,
  empty: 'Empty',
  total: 'Together',
  copy: (what: string) => `Copy the folder: ${what}`,
  failed: 'The folders could not be read.',
};
