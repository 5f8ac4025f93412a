// What the person was told, for tests and for looking at pages.

import type { Alert, AlertsView } from '../../src/lib/api/types';
import { NOW_MS } from './samples';

export const hot: Alert = {
  kind: 'hot',
  sentence:
    'The graphics card has been at 90 °C or more for 5 minutes. Give it air, or limit its power.',
  since_ms: NOW_MS - 420_000,
  until_ms: null,
};

export const fullDisk: Alert = {
  kind: 'low_disk',
  sentence: 'Less than 5 GB are free on the drive of the models. Clean the library up, or move it.',
  since_ms: NOW_MS - 3_600_000,
  until_ms: null,
};

export const alertsView: AlertsView = {
  rules: {
    hot: true,
    hot_c: 90,
    hot_minutes: 5,
    no_points: true,
    no_points_hours: 4,
    stuck: true,
    stuck_minutes: 30,
    low_disk: true,
    low_disk_gb: 5,
    frozen: true,
  },
  past: [
    { ...hot, since_ms: NOW_MS - 90_000_000, until_ms: NOW_MS - 88_800_000 },
    { ...fullDisk, since_ms: NOW_MS - 200_000_000, until_ms: NOW_MS - 190_000_000 },
  ],
};
