// The control's part of a snapshot, its rules and its history, for tests and for looking at pages.

import type {
  ControlStatus,
  Decision,
  Entry,
  MiningState,
  Rules,
  RulesView,
} from '../../src/lib/api/types';

const running: Decision = {
  state: 'running',
  action: 'run',
  why: { by: 'free' },
  sentence: 'Mining.',
  said: { say: 'mining' },
  until_ms: null,
  resume: null,
  resume_lifts: [],
  change: null,
  aside: null,
  aside_lifts: [],
};

/** A game has the machine. */
export const gamePaused: Decision = {
  state: 'paused',
  action: 'hand_back',
  why: { by: 'rule', cause: { cause: 'game', program: 'doom', sign: 'library' } },
  sentence: 'Paused: doom is running. Resumes 3 min after it is gone.',
  said: {
    say: 'held',
    how: 'paused',
    cause: { cause: 'game', program: 'doom', sign: 'library' },
    end: { end: 'game_gone', after_secs: 180 },
  },
  until_ms: null,
  resume: 'Starts again at once and sets aside the game guard for doom, until it is gone.',
  resume_lifts: [{ rule: 'game', program: 'doom' }],
  change: 'games',
  aside: null,
  aside_lifts: [],
};

/** The game has ended a moment ago. */
export function coolingDown(untilMs: number): Decision {
  return {
    ...gamePaused,
    why: { by: 'rule', cause: { cause: 'cool_down', program: 'doom' } },
    sentence: 'Paused: doom was running a moment ago. Resumes at 14:08.',
    said: {
      say: 'held',
      how: 'paused',
      cause: { cause: 'cool_down', program: 'doom' },
      end: { end: 'at', time: { day: null, minute: 14 * 60 + 8 } },
    },
    until_ms: untilMs,
    resume: 'Starts again at once.',
    resume_lifts: [],
  };
}

/** Paused by the person. */
export function snoozed(untilMs: number | null): Decision {
  return {
    ...running,
    state: 'snoozed',
    action: 'hand_back',
    why: { by: 'snooze' },
    sentence: untilMs === null ? 'Paused by you until you resume.' : 'Paused by you until 15:05.',
    said: {
      say: 'snoozed',
      until: untilMs === null ? null : { day: null, minute: 15 * 60 + 5 },
    },
    until_ms: untilMs,
    resume: 'Starts again at once.',
  };
}

/** Runs because the person said so. */
export const anyway: Decision = {
  ...running,
  aside: 'Your choice sets aside your schedule, until you follow your rules again.',
  aside_lifts: [{ rule: 'schedule' }],
};

/** What goes with a state of the miner. */
export function controlIn(state: MiningState): ControlStatus {
  const stopped: Decision = {
    ...running,
    state: 'stopped',
    action: 'hand_back',
    why: { by: 'person' },
    sentence: 'Not mining. Press Start to earn points.',
    said: { say: 'stopped', rules_wait: false },
  };
  const finishing: Decision = {
    ...running,
    state: 'finishing',
    action: 'finish_then_stop',
    why: { by: 'person_finishes' },
    sentence: 'Finishing the running job, then stopping.',
    said: { say: 'finishing' },
  };
  const decisions: Partial<Record<MiningState, Decision>> = {
    stopped,
    finishing,
    paused: gamePaused,
  };
  const proof = { bytes: 10_522_669_875, duration_ms: 940, jobs: 1 };
  return {
    decision: decisions[state] ?? running,
    gave_back: state === 'paused' ? proof : null,
  };
}

export const rules: Rules = {
  when: 'always',
  idle_minutes: 10,
  stop_on_return: true,
  week: Array.from({ length: 7 }, () => 'ccccccmmmmmmmmmmmmmmmmcc'),
  cheap_only: false,
  pause_on_battery: true,
  pause_on_metered: true,
  pause_when_hot: true,
  hot_stop_c: 88,
  hot_resume_c: 75,
  exclusive_cpu: [],
  exclusive_gpu: ['blender'],
  game_guard: true,
  guard_full_screen: true,
  guard_card_load: true,
  guard_libraries: true,
  games: ['doom', 'factorio'],
  not_games: ['vlc'],
  cool_down_secs: 180,
};

export const rulesView: RulesView = {
  rules,
  defaults: { ...rules, exclusive_gpu: [], games: [], not_games: [] },
  abilities: {
    idle: true,
    battery: true,
    metered: true,
    programs: true,
    front: true,
    card_load: true,
    heat: true,
  },
  seen: null,
};

export function history(nowMs: number): Entry[] {
  const at = (minutes: number) => nowMs - minutes * 60_000;
  return [
    { at_ms: at(4), state: 'paused', sentence: gamePaused.sentence, said: gamePaused.said },
    { at_ms: at(130), state: 'running', sentence: 'Mining.', said: { say: 'mining' } },
    {
      at_ms: at(191),
      state: 'snoozed',
      sentence: 'Paused by you until 12:54.',
      said: { say: 'snoozed', until: { day: null, minute: 12 * 60 + 54 } },
    },
    {
      at_ms: at(195),
      state: 'cooling',
      sentence: 'Cooling down, no new jobs: the graphics card reached 88 °C. Resumes at 75 °C.',
      said: {
        say: 'held',
        how: 'cooling',
        cause: { cause: 'hot', reached_c: 88, resume_c: 75 },
        end: { end: 'cooled', resume_c: 75 },
      },
    },
    { at_ms: at(480), state: 'running', sentence: 'Mining.', said: { say: 'mining' } },
    // As an older version wrote it down.
    {
      at_ms: at(1600),
      state: 'stopped',
      sentence: 'Not mining. Press Start to earn points.',
      said: null,
    },
  ];
}
