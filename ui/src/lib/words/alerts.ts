// The words about what the person is told without asking; part of the catalogue in strings.ts.

import type { AlertKind } from '../api/types';

const kinds: Record<AlertKind, string> = {
  hot: 'The card is hot',
  no_points: 'No points',
  stuck: 'A download is stuck',
  low_disk: 'The drive is nearly full',
  frozen: 'Rewards do not come',
};

export const alerts = {
  title: 'Alerts',
  intro: 'What Neurino tells you on Home. Nothing here stops mining.',
  kinds,
  hot: 'Tell me when the graphics card stays hot',
  hotHelp: 'Default: 90 °C or more for 5 minutes.',
  hotC: 'From',
  hotMinutes: 'For',
  minutes: 'min',
  hours: 'h',
  noPoints: 'Tell me when mining earns nothing',
  noPointsHelp: 'Default: after 4 hours of mining without a point.',
  noPointsAfter: 'After',
  stuck: 'Tell me when a download does not move',
  stuckHelp: 'Default: after 30 minutes.',
  stuckAfter: 'After',
  lowDisk: 'Tell me when the drive of the models is nearly full',
  lowDiskHelp: 'Default: less than 5 GB free.',
  lowDiskBelow: 'Below',
  frozen: 'Tell me when rewards do not come',
  frozenHelp:
    'Default on. Results without a receipt for ten minutes, or refused three times in a row.',
  past: 'Past alerts',
  none: 'Nothing was told yet.',
  /** When it was and how long it lasted. */
  lasted: (when: string, span: string) => `${when}, for ${span}`,
  refused: 'The alerts stay as they were',
};
