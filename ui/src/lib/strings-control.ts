// The words about when Neurino mines; part of the catalogue in strings.ts.

import type { Section, State, When } from './api/types';

const whens: Record<When, string> = {
  always: 'Always',
  away: 'While I am away',
  schedule: 'On a schedule',
  away_on_schedule: 'While I am away, on a schedule',
};

const states: Record<State, string> = {
  stopped: 'Stopped',
  running: 'Mining',
  cooling: 'Cooling down',
  finishing: 'Finishing',
  paused: 'Paused',
  snoozed: 'Paused by you',
};

const sections: Record<Section, string> = {
  when: 'When may Neurino mine?',
  games: 'Games',
  programs: 'Programs that come first',
  battery: 'Power and network',
  metered: 'Power and network',
  heat: 'Temperature',
};

export const control = {
  resume: 'Resume anyway',
  resumeShort: 'Resume',
  change: 'Change rule',
  lastMinutes: 'See the last 10 minutes',
  follow: 'Follow my rules',
  letRules: 'Let my rules decide',
  history: 'Past decisions',
  pause: 'Pause…',
  pauseLabel: 'Pause mining for a while',
  menu: {
    quarter: 'Pause for 15 minutes',
    hour: 'Pause for 1 hour',
    open: 'Pause until I resume',
    finish: 'Finish this job, then stop',
    now: 'Stop now',
  },
  /** Time until it goes on by itself. */
  left: (time: string) => `${time} left`,
  gaveBack: (memory: string, time: string, jobs: number) =>
    `Gave back ${memory} in ${time}` +
    (jobs === 0 ? '' : `, ${jobs === 1 ? '1 job' : `${jobs} jobs`} handed on`),
  decisions: {
    title: 'Past decisions',
    intro: 'What Neurino did on its own or on your word, and why. The last 200 are kept.',
    empty: 'Nothing was decided yet.',
    time: 'Time',
    state: 'State',
    why: 'Why',
    states,
  },
  rules: {
    sections,
    cannot: 'Cannot be used here:',
    notTold: {
      idle: 'this system does not tell whether you are away.',
      battery: 'this system does not tell where its power comes from. The rule does nothing.',
      metered: 'this system does not tell whether the network is metered. The rule does nothing.',
      programs: 'this system does not tell which programs run.',
      front: 'this system does not tell which window is in front. The rule does nothing.',
      load: 'no graphics driver tells which program keeps the card busy. The rule does nothing.',
      heat: 'jobs run on a device whose temperature is not told. The rule does nothing.',
    },
    when: 'Neurino mines',
    whenHelp:
      'Default: always. Start and Stop win over every rule until you follow the rules again.',
    whens,
    idle: 'Minutes without mouse and keyboard',
    idleHelp: 'After so many you count as away. Default 10, at most 240.',
    back: 'Stop when I return',
    backHelp: 'Default on. Hands the running job back at once. Off: mining goes on beside you.',
    week: 'Hours of the week',
    weekHelp:
      'Choose what to paint, then click or drag. By keyboard: arrow keys move, Space paints, Shift with an arrow paints on the way.',
    brush: 'Paint',
    brushes: { m: 'Mine', c: 'Mine, cheap electricity', '.': 'Do not mine' },
    days: ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'],
    daysShort: ['Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa', 'Su'],
    hourLabel: (day: string, from: string, to: string, what: string) =>
      `${day} ${from} to ${to}: ${what}`,
    cheap: 'Cheap hours only',
    cheapHelp: 'Default off. Of the painted hours, takes those with cheap electricity.',
    guard: 'Step aside for games',
    guardHelp:
      'Default on. Hands the running job back within two seconds and frees the memory of the card.',
    full: 'A program that fills the screen counts as a game',
    fullHelp:
      'Default on. Films in full screen count too; add their player below if they should not.',
    load: 'A program in front that keeps the card busy counts as a game',
    loadHelp: 'Default on. From 30 % of the graphics card.',
    libraries: 'Programs of Steam, Epic, GOG and other stores are games',
    librariesHelp: 'Default on. Known by the folder they lie in, also in the background.',
    coolDown: 'Wait after a game',
    coolDownHelp: 'Default 3 minutes. Then mining goes on by itself.',
    coolDowns: {
      0: 'Not at all',
      30: '30 seconds',
      60: '1 minute',
      180: '3 minutes',
      600: '10 minutes',
    } as Record<number, string>,
    coolDownOther: (seconds: number) => `${seconds} seconds`,
    games: 'Always a game',
    gamesHelp: 'Default: none. Known by name, also in the background.',
    notGames: 'Never a game',
    notGamesHelp: 'Default: none. Left alone whatever they look like.',
    seen: (program: string) => `Seen in full screen: ${program}`,
    isGame: 'It is a game',
    isNone: 'It is none',
    gpu: 'The graphics card is theirs',
    gpuHelp: 'Default: none. While one runs, no job runs on the graphics card.',
    cpu: 'The processor is theirs',
    cpuHelp: 'Default: none. While one runs, no job runs on the processor.',
    add: 'Add',
    addLabel: (list: string) => `Program to add to “${list}”`,
    addPlaceholder: 'Name, for example blender',
    remove: (program: string) => `Remove ${program}`,
    none: 'None',
    battery: 'Pause on battery',
    batteryHelp: 'Default on. Hands the running job back when the plug is pulled.',
    metered: 'Pause on metered networks',
    meteredHelp: 'Default on. Finishes the running job, then stops.',
    hot: 'Take no jobs while the graphics card is hot',
    hotHelp:
      'Default on. The model stays loaded. Five degrees beyond, the running job is handed back.',
    stop: 'Stop at',
    stopHelp: 'Default 88 °C.',
    resumeAt: 'Go on at',
    resumeAtHelp: 'Default 75 °C, at least 3 below.',
    refused: 'The rules stay as they were',
  },
} as const;
