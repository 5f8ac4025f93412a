// The German words about what Neurino keeps on this machine; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const data: Catalogue['data'] = {
  title: 'Dateien auf diesem Rechner',
  intro:
    'Alles, was Neurino schreibt, liegt in diesen Ordnern. Die Deinstallation lässt sie stehen, ' +
    'wenn du nichts anderes sagst.',
  kinds: {
    models: 'Modelle',
    records: 'Identitätsschlüssel, Wallet, Belege, Aufzeichnungen',
    outbox: 'Fertige Ergebnisse auf dem Weg',
    settings: 'Einstellungen',
    logs: 'Protokolle',
    pictures: 'Bilder, die du behalten hast',
    exports: 'Exporte, um die du gebeten hast',
  },
  empty: 'Leer',
  total: 'Zusammen',
  copy: (what: string) => `Ordner kopieren: ${what}`,
  failed: 'Die Ordner ließen sich nicht lesen.',
};
