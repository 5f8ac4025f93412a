// The German words about cards; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const cards: Catalogue['cards'] = {
  title: 'Karten',
  intro: 'Welche Karten für dich arbeiten, und woran. Ein Job, der läuft, wird erst fertig.',
  introProcessor:
    'Dieser Rechner hat keine Karte, die Neurino nutzen kann, also steht hier der Prozessor.',
  refused: 'Es wurde nichts geändert',
  use: (what: string) => `${what} nutzen`,
  useCard: 'Diese Karte nutzen',
  useCardHelp:
    'Standard: an. Aus: Neurino lässt sie in Ruhe, und Jobs gehen an die anderen Karten.',
  useProcessor: 'Den Prozessor nutzen',
  useProcessorHelp: 'Standard: an. Aus: Auf diesem Rechner läuft kein Mining.',
  role: 'Arbeit',
  roleHelp: 'Standard: beides. Nur solche Modelle werden auf ihr angeboten und geladen.',
  roleLabel: (card: string) => `Woran ${card} arbeitet`,
  roles: { both: 'Beides', text: 'Text', pictures: 'Bilder' },
  name: 'Name',
  nameHelp: 'Steht statt dem des Herstellers. Leer: der des Herstellers.',
  nameLabel: (card: string) => `Name von ${card}`,
  inUse: 'In Gebrauch',
  notUsed: 'Nicht in Gebrauch',
  gone: 'Weg',
  pending: 'Nach diesem Job',
  choose: 'Karten wählen',
  memory: (size: string) => `${size} Speicher`,
};
