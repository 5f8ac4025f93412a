// Power as the program tells it, for tests and for looking at pages.

import type { PowerCardView, PowerCommand, PowerView, SweepView } from '../../src/lib/api/types';

export const limited: PowerCardView = {
  card: 'GPU-1',
  name: 'NVIDIA GeForce RTX 4090',
  range: { least_w: 150, most_w: 600, usual_w: 450 },
  now_w: 320,
  limit_w: 320,
  state: { state: 'held' },
  command: null,
};

export const forbidden: PowerCardView = {
  ...limited,
  now_w: 450,
  limit_w: null,
  state: { state: 'no_permission' },
  command: 'sudo nvidia-smi -i 0 -pl 337',
};

const rows = [450, 405, 360, 315, 270, 225].map((limit_w, n) => ({
  limit_w,
  drew_w: limit_w - 12 - n,
  per_hour: [1840, 1822, 1781, 1690, 1502, 1204][n] ?? 0,
  per_kwh: [4200, 4647, 5131, 5591, 5844, 5760][n] ?? 0,
}));

export const searching: SweepView = {
  card: 'GPU-1',
  stage: 'measuring',
  progress: 0.42,
  trying_w: 360,
  rows: rows.slice(0, 2),
  measure: 'points',
  advice_w: null,
};

export const searched: SweepView = {
  ...searching,
  stage: 'done',
  progress: 1,
  trying_w: null,
  rows,
  advice_w: 270,
};

export function powerView(change: Partial<PowerView> = {}): PowerView {
  return {
    cards: [limited],
    no_cards: null,
    sweep: null,
    keep_awake: 'jobs',
    awake: { state: 'held' },
    ...change,
  };
}

/** What the states of the gallery are called. */
export const powers: Record<string, PowerView> = {
  limited: powerView(),
  own: powerView({
    cards: [{ ...limited, limit_w: null, now_w: 450, state: { state: 'own' } }],
    awake: { state: 'released' },
  }),
  theirs: powerView({ cards: [{ ...limited, now_w: 380, state: { state: 'theirs' } }] }),
  forbidden: powerView({
    cards: [forbidden],
    awake: { state: 'failed', message: "the system's session service (logind) does not answer" },
  }),
  notebook: powerView({
    cards: [{ ...forbidden, range: null, command: null, state: { state: 'not_supported' } }],
  }),
  searching: powerView({ sweep: searching }),
  searched: powerView({ sweep: searched }),
  none: powerView({
    cards: [],
    no_cards: 'This machine has no NVIDIA card, so jobs run on the processor.',
    awake: { state: 'released' },
  }),
};

/** What the program would answer. */
export function answerPower(view: PowerView, command: PowerCommand): PowerView {
  switch (command.ask) {
    case 'keep_awake':
      return { ...view, keep_awake: command.when };
    case 'limit':
      return {
        ...view,
        cards: view.cards.map((card) =>
          card.card === command.card ? { ...card, limit_w: command.limit_w } : card,
        ),
      };
    case 'sweep_start':
      return { ...view, sweep: searching };
    case 'sweep_stop':
      return { ...view, sweep: null };
    default:
      return view;
  }
}
