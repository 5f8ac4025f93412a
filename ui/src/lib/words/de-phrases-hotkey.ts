// The phrase book of the hotkey; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  ['this system gives no keys to programs', 'dieses System gibt Programmen keine Tasten'],
  [
    'under Wayland no program can take a key for itself',
    'unter Wayland kann kein Programm eine Taste für sich nehmen',
  ],
  ['another program has {}', 'ein anderes Programm hat {0}'],
  ['this keyboard has no key for {}', 'diese Tastatur hat keine Taste für {0}'],
  ['the system does not give {} to Neurino: {}', 'das System gibt Neurino {0} nicht: {1}'],
  [
    'choose other keys, or free them in the other program',
    'wähle andere Tasten oder gib sie im anderen Programm frei',
  ],
  ['choose other keys', 'wähle andere Tasten'],
  [
    "put the command `neurino toggle` on a key in the desktop's own settings",
    'leg den Befehl `neurino toggle` in den Einstellungen des Desktops auf eine Taste',
  ],
  ['the hotkey could not be set', 'das Tastenkürzel ließ sich nicht setzen'],
];
