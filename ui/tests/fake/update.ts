// Newer versions and notifications, for tests and for looking at pages.

import type { NoticeSettings, UpdateStatus, UpdateView } from '../../src/lib/api/types';
import { NOW_MS } from './samples';

const notes = {
  en: 'Pictures are made a third faster.\nDownloads survive a change of network.',
  de: 'Bilder entstehen ein Drittel schneller.\nDownloads überstehen einen Netzwechsel.',
};

export const ready: UpdateStatus = {
  status: 'ready',
  version: '0.2.0',
  notes,
  later_until_ms: null,
};

export const byHand: UpdateStatus = {
  status: 'by_hand',
  version: '0.2.0',
  notes,
  command: 'sudo apt install /home/ada/.local/share/neurino/updates/neurino_0.2.0_amd64.deb',
};

export const installing: UpdateStatus = { status: 'installing', version: '0.2.0' };
export const takenBack: UpdateStatus = {
  status: 'taken_back',
  version: '0.2.0',
  dismissed: false,
};

export function updateView(changes: Partial<UpdateView> = {}): UpdateView {
  return {
    own: '0.1.0',
    keeper: 'itself',
    preferences: { check: true, by_itself: true },
    checked_at_ms: NOW_MS - 3_600_000,
    status: { status: 'none' },
    problem: null,
    back_to: null,
    ...changes,
  };
}

export const noticeSettings: NoticeSettings = {
  needs_you: true,
  paused: false,
  first_points: false,
  weekly: false,
  update: false,
  model: false,
  jobs_fail: false,
  alerts: false,
  hotkey: true,
};
