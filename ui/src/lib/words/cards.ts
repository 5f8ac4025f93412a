// The words about cards: switches, roles and names; part of the catalogue in strings.ts.

import type { CardRole } from '../api/types';

const roles: Record<CardRole, string> = {
  both: 'Both',
  text: 'Text',
  pictures: 'Pictures',
};

export const cards = {
  title: 'Cards',
  intro: 'Which cards work for you, and at what. A job that runs is finished first.',
  introProcessor: 'This machine has no card that Neurino can use, so the processor stands here.',
  refused: 'Nothing was changed',
  use: (what: string) => `Use ${what}`,
  useCard: 'Use this card',
  useCardHelp: 'Default on. Off: Neurino leaves it alone, and jobs go to the other cards.',
  useProcessor: 'Use the processor',
  useProcessorHelp: 'Default on. Off: nothing is mined on this machine.',
  role: 'Works on',
  roleHelp: 'Default both. Only models of this kind are offered and loaded on it.',
  roleLabel: (card: string) => `What ${card} works on`,
  roles,
  name: 'Name',
  nameHelp: 'Shown instead of the maker’s name. Empty: the maker’s.',
  nameLabel: (card: string) => `Name of ${card}`,
  inUse: 'In use',
  notUsed: 'Not used',
  gone: 'Gone',
  pending: 'After this job',
  choose: 'Choose cards',
  memory: (size: string) => `${size} of memory`,
};
