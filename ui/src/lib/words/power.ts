// The words about power limits, sleep, and mining while the person works; part of the catalogue in
// strings.ts.

import type { KeepAwake, SweepMeasure, SweepStage } from '../api/types';

const keepAwakes: Record<KeepAwake, string> = {
  never: 'No',
  jobs: 'While a job runs',
  mining: 'As long as it mines',
};

const stages: Record<SweepStage, string> = {
  settling: 'The new limit takes effect',
  measuring: 'Counting the work of your jobs',
  waiting: 'Waiting for a job; nothing is counted',
  done: 'Finished',
  not_comparable: 'No result: the limits had different kinds of jobs, or too few of them.',
  no_work: 'No result: there were too few jobs to measure. Try again when there is more work.',
  stopped: 'Broken off. Your own limit is back.',
};

const works: Record<SweepMeasure, string> = {
  points: 'Points',
  tokens: 'Tokens',
  pictures: 'Pictures',
};

const lower: Record<SweepMeasure, string> = {
  points: 'points',
  tokens: 'tokens',
  pictures: 'pictures',
};

export const power = {
  title: 'Sleep and power limit',
  awake: 'Keep the computer awake',
  awakeHelp:
    'Default: while a job runs, and two minutes longer in case another comes. The screen may go dark. Pause and stop let the computer sleep.',
  awakes: keepAwakes,
  awakeNow: 'Kept awake now.',
  awakeFailed: (why: string) => `The computer may fall asleep while it works: ${why}.`,
  limit: 'Power limit while mining',
  limitHelp:
    'Default: the card’s own. Less power is cooler, quieter and cheaper, and costs some pace. Pause, a game and stop bring back the limit that was there before.',
  limitLabel: (card: string) => `Power limit of ${card} while mining, in watts`,
  watts: (w: number) => `${Math.round(w)} W`,
  ofUsual: (percent: number) => `${percent} % of the usual`,
  own: 'The card’s own',
  useOwn: 'Use the card’s own',
  held: (w: number) => `Limited to ${w} W now.`,
  waits: 'Takes effect when mining runs.',
  theirs: (w: number) =>
    `Another program set ${w} W while Neurino was mining. That stays until mining stops or you choose anew.`,
  notSupported: 'This card does not let its power limit be changed, as is common in notebooks.',
  noPermission: (now: number) =>
    `The driver lets only the administrator change this limit (now ${now} W). To set it until the next restart, run this once in a terminal:`,
  copy: 'Copy the command',
  failed: (why: string) => `The limit was not set: ${why}.`,
  refused: 'Nothing was changed',
  sweep: {
    title: 'Find the best limit',
    help: 'Tries up to six limits, each for a minute of real work, and shows which one earns most with a kilowatt hour. Takes about eight minutes. You decide what to do with it.',
    start: 'Search',
    needsMining: 'Start mining first: the search measures your real jobs.',
    trying: (w: number) => `Trying ${w} W`,
    stages,
    progress: 'How far the search is',
    stop: 'Stop the search',
    close: 'Close',
    limit: 'Limit',
    drew: 'Drew',
    perHour: (measure: SweepMeasure) => `${works[measure]} an hour`,
    perKwh: (measure: SweepMeasure) => `${works[measure]} per kWh`,
    advice: (w: number) => `${w} W works best`,
    better: (percent: number, measure: SweepMeasure, first: number) =>
      `${percent} % more ${lower[measure]} per kWh than at ${first} W`,
    pace: (percent: number) => `${percent} % of the best pace`,
    first: 'The card’s usual limit is already the best of those tried.',
    method:
      'The most work per kilowatt hour among limits that keep at least 80 % of the best pace.',
    use: (w: number) => `Use ${w} W`,
    best: 'best',
  },
  gentle: {
    title: 'While I use the computer',
    on: 'Go easy while I use the computer',
    onHelp:
      'Default off. Mining goes on with less of the machine, and at full pace once you are away.',
    minutes: 'Away after',
    minutesHelp: 'Default 5 minutes without mouse and keyboard.',
    minutesUnit: 'min',
    share: 'Power of the card',
    shareHelp: 'Default 70 % of its usual limit.',
    shareCannot: 'No card here lets Neurino change its power limit.',
    oneJob: 'One job at a time',
    oneJobHelp: 'Default on. Running jobs go on; the next one is taken when none runs.',
    idleCannot:
      'Cannot be used here: this system does not tell when mouse and keyboard were last used.',
  },
  deviceLimit: (w: number) => `of ${w} W`,
};
