// The German words about power limits, sleep, and mining while the person works; part of de.ts.

import type { SweepMeasure } from '../api/types';
import type { Catalogue } from '../language.svelte';

const works: Record<SweepMeasure, string> = {
  points: 'Punkte',
  tokens: 'Token',
  pictures: 'Bilder',
};

export const power: Catalogue['power'] = {
  title: 'Schlaf und Leistungsgrenze',
  awake: 'Den Computer wach halten',
  awakeHelp:
    'Standard: solange ein Job läuft, und zwei Minuten länger, falls noch einer kommt. Der Bildschirm darf dunkel werden. Pause und Stopp lassen den Computer schlafen.',
  awakes: { never: 'Nein', jobs: 'Solange ein Job läuft', mining: 'Solange Mining läuft' },
  awakeNow: 'Wird gerade wach gehalten.',
  awakeFailed: (why: string) => `Der Computer kann bei der Arbeit einschlafen: ${why}.`,
  limit: 'Leistungsgrenze beim Mining',
  limitHelp:
    'Standard: die der Karte. Weniger Leistung ist kühler, leiser und billiger und kostet etwas Tempo. Pause, Spiel und Stopp bringen die Grenze zurück, die vorher galt.',
  limitLabel: (card: string) => `Leistungsgrenze von ${card} beim Mining, in Watt`,
  watts: (w: number) => `${Math.round(w)} W`,
  ofUsual: (percent: number) => `${percent} % der üblichen`,
  own: 'Die der Karte',
  useOwn: 'Die der Karte nehmen',
  held: (w: number) => `Jetzt auf ${w} W begrenzt.`,
  waits: 'Gilt, sobald Mining läuft.',
  theirs: (w: number) =>
    `Ein anderes Programm hat beim Mining ${w} W eingestellt. Das bleibt, bis Mining anhält oder du neu wählst.`,
  notSupported: 'Diese Karte lässt ihre Leistungsgrenze nicht ändern, wie oft in Notebooks.',
  noPermission: (now: number) =>
    `Der Treiber lässt nur den Administrator diese Grenze ändern (jetzt ${now} W). Bis zum nächsten Neustart setzt sie dieser Befehl in einem Terminal:`,
  copy: 'Den Befehl kopieren',
  failed: (why: string) => `Die Grenze wurde nicht gesetzt: ${why}.`,
  refused: 'Es wurde nichts geändert',
  sweep: {
    title: 'Die beste Grenze suchen',
    help: 'Probiert bis zu sechs Grenzen, jede eine Minute lang an echter Arbeit, und zeigt, welche mit einer Kilowattstunde am meisten einbringt. Dauert etwa acht Minuten. Was damit geschieht, entscheidest du.',
    start: 'Suchen',
    needsMining: 'Starte erst das Mining: Die Suche misst deine echten Jobs.',
    trying: (w: number) => `Probiert ${w} W`,
    stages: {
      settling: 'Die neue Grenze stellt sich ein',
      measuring: 'Zählt die Arbeit deiner Jobs',
      waiting: 'Wartet auf einen Job; es wird nichts gezählt',
      done: 'Fertig',
      not_comparable:
        'Kein Ergebnis: Die Grenzen hatten verschiedene Arten von Jobs, oder zu wenige.',
      no_work:
        'Kein Ergebnis: Es gab zu wenige Jobs zum Messen. Versuch es wieder, wenn mehr zu tun ist.',
      stopped: 'Abgebrochen. Deine eigene Grenze gilt wieder.',
    },
    progress: 'Wie weit die Suche ist',
    stop: 'Suche abbrechen',
    close: 'Schließen',
    limit: 'Grenze',
    drew: 'Verbrauch',
    perHour: (measure: SweepMeasure) => `${works[measure]} je Stunde`,
    perKwh: (measure: SweepMeasure) => `${works[measure]} je kWh`,
    advice: (w: number) => `${w} W sind am besten`,
    better: (percent: number, measure: SweepMeasure, first: number) =>
      `${percent} % mehr ${works[measure]} je kWh als mit ${first} W`,
    pace: (percent: number) => `${percent} % des besten Tempos`,
    first: 'Die übliche Grenze der Karte ist schon die beste der probierten.',
    method:
      'Am meisten Arbeit je Kilowattstunde unter den Grenzen, die mindestens 80 % des besten Tempos halten.',
    use: (w: number) => `${w} W nehmen`,
    best: 'beste',
  },
  gentle: {
    title: 'Während ich am Computer bin',
    on: 'Sich zurückhalten, während ich am Computer bin',
    onHelp:
      'Standard: aus. Mining läuft mit weniger vom Computer weiter, und mit vollem Tempo, sobald du weg bist.',
    minutes: 'Weg nach',
    minutesHelp: 'Standard: 5 Minuten ohne Maus und Tastatur.',
    minutesUnit: 'Min.',
    share: 'Leistung der Karte',
    shareHelp: 'Standard: 70 % ihrer üblichen Grenze.',
    shareCannot: 'Keine Karte hier lässt Neurino ihre Leistungsgrenze ändern.',
    oneJob: 'Ein Job auf einmal',
    oneJobHelp: 'Standard: an. Laufende Jobs gehen weiter; der nächste kommt, wenn keiner läuft.',
    idleCannot:
      'Geht hier nicht: Dieses System sagt nicht, wann Maus und Tastatur zuletzt benutzt wurden.',
  },
  deviceLimit: (w: number) => `von ${w} W`,
};
