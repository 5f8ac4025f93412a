// The German words about what the person is told without asking; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const alerts: Catalogue['alerts'] = {
  title: 'Warnungen',
  intro: 'Was Neurino dir auf der Übersicht sagt. Nichts davon hält Mining an.',
  kinds: {
    hot: 'Die Karte ist heiß',
    no_points: 'Keine Punkte',
    stuck: 'Ein Download hängt',
    low_disk: 'Das Laufwerk ist fast voll',
    frozen: 'Belohnungen bleiben aus',
  },
  hot: 'Sag mir, wenn die Grafikkarte heiß bleibt',
  hotHelp: 'Standard: ab 90 °C für 5 Minuten.',
  hotC: 'Ab',
  hotMinutes: 'Dauer',
  minutes: 'Min.',
  hours: 'Std.',
  noPoints: 'Sag mir, wenn Mining nichts einbringt',
  noPointsHelp: 'Standard: nach 4 Stunden Mining ohne einen Punkt.',
  noPointsAfter: 'Nach',
  stuck: 'Sag mir, wenn ein Download sich nicht bewegt',
  stuckHelp: 'Standard: nach 30 Minuten.',
  stuckAfter: 'Nach',
  lowDisk: 'Sag mir, wenn das Laufwerk der Modelle fast voll ist',
  lowDiskHelp: 'Standard: unter 5 GB frei.',
  lowDiskBelow: 'Unter',
  frozen: 'Sag mir, wenn Belohnungen ausbleiben',
  frozenHelp:
    'Standard: an. Ergebnisse, die zehn Minuten ohne Quittung sind oder dreimal nacheinander abgelehnt wurden.',
  past: 'Frühere Warnungen',
  none: 'Noch wurde nichts gesagt.',
  lasted: (when: string, span: string) => `${when}, ${span} lang`,
  refused: 'Die Warnungen bleiben, wie sie waren',
};
