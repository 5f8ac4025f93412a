// The phrase book of power limits, sleep and alerts; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  // Keeping the computer awake.
  [
    'this system offers no way to keep the computer awake',
    'dieses System bietet keine Möglichkeit, den Rechner wach zu halten',
  ],
  [
    "the system's session service (logind) does not answer",
    'der Sitzungsdienst des Systems (logind) antwortet nicht',
  ],
  ['the system does not allow it: {}', 'das System erlaubt es nicht: {0}'],
  // Limits and the search for the best one.
  ['the cards cannot be read', 'die Karten lassen sich nicht lesen'],
  ['the share of the power', 'der Anteil der Leistung'],
  ['There is no such card any more.', 'Diese Karte gibt es nicht mehr'],
  ['This card takes {} to {} watts, not {}.', 'Diese Karte nimmt {0} bis {1} Watt, nicht {2}'],
  [
    'The driver shows no card whose power could be limited.',
    'Der Treiber zeigt keine Karte, deren Leistung sich begrenzen ließe',
  ],
  ['Not possible: {}.', 'Geht nicht: {0}'],
  [
    'Set the limit as the administrator, or start Neurino as the administrator.',
    'Setze die Grenze als Administrator oder starte Neurino als Administrator',
  ],
  [
    'The search measures real jobs, and this machine does not mine.',
    'Die Suche misst echte Jobs, und dieser Rechner arbeitet gerade nicht',
  ],
  ['Press Start, then search.', 'Drück auf Start, dann such'],
  [
    'This card has one limit only, so there is nothing to search.',
    'Diese Karte kennt nur eine Grenze, also gibt es nichts zu suchen',
  ],
  ['A search runs already.', 'Es läuft schon eine Suche'],
  [
    'the card does not let its power limit be changed',
    'die Karte lässt ihre Leistungsgrenze nicht ändern',
  ],
  [
    'the driver lets only the administrator change power limits',
    'der Treiber lässt nur den Administrator Leistungsgrenzen ändern',
  ],
  ['the card does not answer', 'die Karte antwortet nicht'],
  ['the driver refuses: {}', 'der Treiber weigert sich: {0}'],
  [
    'the record of changed power limits {} cannot be {}; check the free space and the folder',
    'die Aufzeichnung geänderter Leistungsgrenzen {0} ist nicht benutzbar ({1}); prüf den freien Platz und den Ordner',
  ],
  // What the person is told without asking.
  [
    'The graphics card has been at {} °C or more for {} minutes. Give it air, or limit its power.',
    'Die Grafikkarte ist seit {1} Minuten {0} °C warm oder wärmer. Gib ihr Luft oder begrenze ihre Leistung',
  ],
  [
    'Nothing was earned in {} hours of mining. The check of this machine in the settings may say why.',
    'In {0} Stunden Mining kam nichts herein. Die Prüfung dieses Rechners in den Einstellungen sagt vielleicht, warum',
  ],
  [
    'The download of {} has not moved for {} minutes. Pause and resume it, or check the line.',
    'Der Download von {0} steht seit {1} Minuten. Halte ihn an und lass ihn weiterlaufen, oder prüf die Leitung',
  ],
  [
    'Less than {} GB are free on the drive of the models. Clean the library up, or move it.',
    'Auf dem Laufwerk der Modelle sind weniger als {0} GB frei. Räum die Bibliothek auf oder zieh sie um',
  ],
  [
    'The rewards of {} finished jobs have not come. Earnings shows which.',
    'Für {0} fertige Jobs ist keine Belohnung gekommen. Unter Einnahmen steht, für welche',
  ],
  ['the temperature to alert at', 'die Grad für den Hinweis'],
  ['the minutes of heat', 'die Minuten Hitze'],
  ['the hours without points', 'die Stunden ohne Punkte'],
  ['the minutes without progress', 'die Minuten ohne Fortschritt'],
  ['the gigabytes that are free', 'die freien Gigabyte'],
];
