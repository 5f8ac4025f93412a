// The phrase book of cards and of demand; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  ['This machine has no such card.', 'Dieser Rechner hat keine solche Karte'],
  ['the choice could not be written down', 'die Wahl ließ sich nicht aufschreiben'],
  [
    "A card's name has up to {} letters in one line.",
    'Der Name einer Karte hat bis zu {0} Buchstaben in einer Zeile',
  ],
  ['Switched off in the settings.', 'In den Einstellungen ausgeschaltet'],
  [
    'It does not answer any more. Neurino looks for it.',
    'Sie antwortet nicht mehr. Neurino sucht sie',
  ],
  [
    'Not used: the environment hides it from CUDA.',
    'Nicht in Gebrauch: Die Umgebung verbirgt sie vor CUDA',
  ],
];
