// The words about newer versions and notifications; part of the catalogue in strings.ts.

export const update = {
  title: 'Updates',
  refused: 'That did not work',
  problem: 'No update',
  runs: (version: string) => `Version ${version} runs.`,
  nowhere: 'This version does not update itself.',
  notYet: 'Newer versions have not been looked for yet.',
  latest: (at: string) => `It is the latest, as of ${at}.`,
  check: 'Look now',
  looking: 'Looking',
  fetching: (version: string, done: string, of: string) => `Fetching ${version}: ${done} of ${of}.`,
  ready: (version: string) => `Neurino ${version} is ready.`,
  between:
    'It installs itself between jobs, once this window is closed or has not been in front for ten minutes.',
  put: (version: string, at: string) => `Neurino ${version} is ready and waits until ${at}.`,
  byHand: (version: string) => `Neurino ${version} is here and checked. This command installs it:`,
  copyCommand: 'Copy the command',
  installing: (version: string) =>
    `Neurino ${version} is installed as soon as no job runs. Then it starts again by itself.`,
  takenBack: (version: string) =>
    `Neurino ${version} did not come up, so the version before it is back.`,
  install: 'Install now',
  again: 'Try it again',
  dismiss: 'Got it',
  later: 'Later',
  whatsNew: "What's new",
  checkAlways: 'Look for newer versions',
  checkAlwaysHelp:
    'Default: on. Every six hours; what is found is fetched and checked. The catalogue of models once a day.',
  byItself: 'Install them between jobs',
  byItselfHelp:
    'Default: on. Only while no job runs and the window is closed, or has not been in front for ten minutes; mining goes on afterwards. A version that does not come up is taken back.',
  backTo: (version: string) => `Version ${version} is kept.`,
  backHelp:
    'Running jobs finish first. Going back starts Neurino again and installs nothing by itself any more.',
  back: 'Go back',
  backNow: 'Go back and start again',
  stay: 'Stay',
};

export const antivirus = {
  title: 'My antivirus program complains',
  words: [
    'Antivirus programs distrust what keeps a graphics card busy in the background and talks to a network, because unwanted mining programs do the same. Neurino mines no currency: it computes texts and pictures, and it holds no program of somebody else.',
    'Check that your download is the real one: beside every release lies SHA256SUMS. Under Windows, `Get-FileHash` with the installer must give the same digits; under Linux, `sha256sum --check SHA256SUMS` does. If they differ, delete the file.',
    'If they are the same, restore the file from quarantine and except the folder that Neurino is installed in, not your whole drive. Then tell the maker that it is a false alarm: every one of them has a form for it, and Windows Defender has one at microsoft.com/wdsi/filesubmission.',
    'When the program that computes is gone, or your system lets nobody start it, mining stops and says so: restore it from quarantine, or install Neurino again. Keys, points and models stay where they are.',
  ],
};

export const notices = {
  title: 'Notifications',
  intro: 'What your desktop tells you, each thing once.',
  refused: 'The notifications stay as they were',
  needsYou: 'Neurino needs you',
  needsYouHelp: 'Default: on. Mining cannot go on before you have seen to something.',
  paused: 'A rule paused mining',
  pausedHelp: 'Default: off. With the reason.',
  firstPoints: 'First points of the day',
  firstPointsHelp: 'Default: off.',
  weekly: 'What the week brought',
  weeklyHelp:
    'Default: off. When a week of the network is over, on Thursday at 00:00 UTC, or at the first start after it.',
  update: 'A newer version is ready',
  updateHelp: 'Default: off.',
  model: 'A model is ready',
  modelHelp: 'Default: off. When a download has ended and was checked.',
  jobsFail: 'Jobs fail',
  jobsFailHelp: 'Default: off. Three in a row.',
  alerts: 'Alerts',
  alertsHelp: 'Default: off. What Home tells as an alert.',
  hotkey: 'What the hotkey did',
  hotkeyHelp: 'Default: on. Only after you have pressed it.',
  test: 'Send a test',
  sent: 'Sent',
};
