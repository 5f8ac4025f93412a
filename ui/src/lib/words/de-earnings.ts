// The German words of the Earnings page and of Help.

import type { Catalogue } from '../language.svelte';
import type { RateCauseKind } from '../api/types';

const causes: Record<RateCauseKind, [less: string, more: string]> = {
  hours_mined: ['weniger Mining-Zeit', 'mehr Mining-Zeit'],
  jobs_per_hour: ['weniger Jobs pro Stunde', 'mehr Jobs pro Stunde'],
  model_mix: ['Modelle, die weniger bringen', 'Modelle, die mehr bringen'],
  multiplier: ['ein niedrigerer Multiplikator', 'ein höherer Multiplikator'],
  job_size: ['kleinere Jobs', 'größere Jobs'],
};

export const income: Catalogue['income'] = {
  title: 'Einnahmen',
  views: 'Was du sehen willst',
  view: { overview: 'Überblick', receipts: 'Belege', jobs: 'Jobs', sensors: 'Sensoren' },
  kinds: { llama: 'Llama', waifu: 'Waifu' },
  kind: 'Art der Punkte',
  now: 'Jetzt',
  spans: { today: 'Heute', week: '7 Tage', month: '30 Tage', lifetime: 'Insgesamt' },
  hours: 'Mining-Stunden',
  perHour: 'pro Stunde',
  estimating: 'wird geschätzt…',
  estimatingFor: (time: string) => `braucht noch ${time} Mining`,
  idle: 'kein Mining',
  nowHelp: (mined: string) =>
    `Bestätigte Punkte der letzten 15 Minuten, geteilt durch die Mining-Zeit darin, ${mined}.`,
  jobs: (n: string) => (n === '1' ? '1 Job' : `${n} Jobs`),
  since: (day: string) => `seit ${day}`,
  hoursToday: (time: string) => `heute ${time}`,
  confirmed: 'Bestätigt: Jede Zahl hier stammt aus einem Beleg, den dieser Rechner geprüft hat.',
  pendingNone: 'Nichts steht aus.',
  pending: (n: number, since: string) =>
    n === 1
      ? `Ausstehend: 1 Ergebnis wartet seit ${since} auf seinen Beleg. Es zählt noch nicht mit.`
      : `Ausstehend: ${n} Ergebnisse warten auf ihre Belege, das älteste seit ${since}. Sie zählen noch nicht mit.`,
  zone: (zone: string) => `Tage beginnen um Mitternacht, ${zone}.`,
  history: 'Im Verlauf',
  steps: { hour: '48 Stunden', day: '30 Tage', week: '26 Wochen' },
  step: 'Breite eines Balkens',
  asTable: 'Als Tabelle zeigen',
  asChart: 'Als Diagramm zeigen',
  tableOf: (what: string) => `${what}, als Tabelle`,
  when: 'Wann',
  time: 'Mining-Zeit',
  jobsHead: 'Jobs',
  points: 'Punkte',
  summary: (earning: number, of: number, best: string, amount: string, kind: string) =>
    `${earning} von ${of} brachten etwas ein. Am besten war ${best} mit ${amount} ${kind}-Punkten.`,
  summaryNone: (of: number) => `In keinem dieser ${of} Abschnitte wurde etwas verdient.`,
  projection: 'Nächste 24 Stunden',
  projectionHelp:
    'Wenn es rund um die Uhr so weitergeht wie in den letzten 15 Minuten. Kein Versprechen.',
  projectionIdle: 'Erscheint nach 5 Minuten Mining.',
  change: 'Warum verdiene ich mehr oder weniger?',
  changeHelp: 'Die letzten 24 Stunden neben den 24 davor.',
  changeYoung: 'Erscheint, sobald es zwei Tage zum Vergleichen gibt.',
  changeSame: (kind: string) => `${kind}: so viel wie am Tag davor.`,
  changeMore: (kind: string, amount: string, share: string) =>
    `${kind}: ${amount} Punkte mehr als am Tag davor (${share}).`,
  changeLess: (kind: string, amount: string, share: string) =>
    `${kind}: ${amount} Punkte weniger als am Tag davor (${share}).`,
  changeNew: (kind: string, amount: string) => `${kind}: ${amount} Punkte, am Tag davor keine.`,
  because: 'Das liegt vor allem daran',
  cause: (kind: RateCauseKind, more: boolean) => causes[kind][more ? 1 : 0],
  effect: (amount: string) => `${amount} Punkte`,
  week: 'Wochenabschluss',
  weekIn: 'übrig',
  weekAt: (when: string) => `Am ${when}. Was bis dahin bestätigt ist, zählt zu dieser Woche.`,
  weekPending: 'Ergebnisse, die dann noch ausstehen, zählen zur Woche danach.',
  weekPractice: 'Übungswochen werden genauso gezählt, zahlen aber nichts.',
  weeks: 'Frühere Wochen',
  weeksNone: 'Hier werden frühere Wochen aufgehoben.',
  weekOf: (from: string, until: string) => `${from} – ${until}`,
  trust: 'Prüfungen',
  trustStage: {
    new: 'Neu in diesem Netzwerk',
    watched: 'Einige Ergebnisse werden geprüft',
    established: 'Bewährt',
    convicted: 'Dieses Netzwerk gibt keine Arbeit mehr',
  },
  trustNew: (left: string) =>
    left === '1'
      ? 'Ein anderer Rechner rechnet jedes Ergebnis nach. Hält noch eines, werden es weniger.'
      : `Ein anderer Rechner rechnet jedes Ergebnis nach. Halten noch ${left}, werden es weniger.`,
  trustSome: (each: string) => `Ein anderer Rechner rechnet etwa jedes ${each}. Ergebnis nach.`,
  trustAlone:
    'Niemand sonst in diesem Netzwerk bietet deine Modelle an; noch kann niemand nachrechnen.',
  trustLost:
    'Die Ergebnisse hielten nicht, als andere sie nachrechneten. Wenn das falsch ist, bitte den Betreiber des Netzwerks, es sich anzusehen.',
  trustHeld: (held: string) =>
    held === '1' ? 'Bisher hielt ein Ergebnis.' : `Bisher hielten ${held} Ergebnisse in Folge.`,
  trustEscrow: (amount: string, days: string) =>
    `${amount} Punkte der letzten ${days} Tage können noch zurückgenommen werden, wenn eine Prüfung fehlschlägt.`,
  energy: 'Energie',
  energyHelp: 'Des Geräts, das rechnet, während des Minings.',
  energyEstimated: 'Aus der Auslastung geschätzt: Dieses Gerät hat keinen Leistungssensor.',
  energyPartly: (share: string) => `${share} davon sind aus der Auslastung geschätzt.`,
  kwh: (n: string) => `${n} kWh`,
  cost: 'Kosten',
  perKwh: (kind: string) => `${kind}/kWh`,
  perKwhHead: 'Punkte pro kWh',
  price: 'Preis einer kWh',
  priceCheap: 'In günstigen Stunden',
  priceNone: 'Gib einen Preis an, um die Kosten zu sehen.',
  currency: 'Währung',
  priceSave: 'Preis speichern',
  priceHelp:
    'Zum Beispiel 0,32 und EUR. Lass den Preis leer, um ihn zu vergessen. Günstig sind die Stunden, die der Wochenplan so nennt; die Energie jeder Stunde zählt mit ihrem Preis.',
  priceWrong: 'Das ist kein Preis zwischen 0 und 1.000.000.',
  breakdown: 'Modelle und Faktoren',
  breakdownHelp:
    'Die letzten 30 Tage. Punkte = Grundwert × Faktor des Modells × dein Multiplikator.',
  breakdownNone: 'Jedes Modell, das etwas verdient hat, erscheint hier.',
  model: 'Modell',
  factor: 'Faktor',
  multiplier: 'Multiplikator',
  multiplierHelp:
    'Dein Multiplikator fasst Besitz und Saison zusammen; ein Beleg nennt ihn als eine Zahl.',
  rules: 'Regeln',
  share: 'Anteil',
  checked: (n: string) => `${n} Belege auf diesem Rechner nachgerechnet: Alle stimmen.`,
  checkedUnknown: (n: string) => `${n} folgen Regeln, die diese Version nicht kennt.`,
  export: 'Zum Mitnehmen',
  exportHelp: 'Landet bei deinen Dokumenten, für eine Tabelle oder ein Skript.',
  exports: { receipts: 'Belege', jobs: 'Jobs', days: 'Tage' },
  exportAs: (what: string, format: string) => `${what} als ${format} speichern`,
  saved: (path: string) => `Gespeichert als ${path}`,
  drift: (n: number) => (n === 1 ? 'Ein Beleg stimmt nicht' : `${n} Belege stimmen nicht`),
  driftWords: (points: string) =>
    `Nach ihren eigenen Regeln nachgerechnet weichen sie zusammen um ${points} Punkte ab.`,
  driftShow: 'Zeigen',
  frozen: 'Ergebnisse gehen raus, aber nichts wird gutgeschrieben',
  frozenWords: (n: number, since: string | null) =>
    `${n === 1 ? '1 Ergebnis hat' : `${n} Ergebnisse haben`} keinen Beleg. ${
      since ? `Die letzte Gutschrift war ${since}.` : 'Es gab noch keine Gutschrift.'
    }`,
  frozenHint: 'Prüf die Verbindung zum Netzwerk; bleibt es so, sag es seinem Betreiber.',
  books: 'Das Netzwerk hat mehr bezahlt, als dieser Rechner Belege hat',
  booksWords: (kind: string, books: string, receipts: string) =>
    `${kind}-Punkte: ${books} in den Büchern des Übungsnetzwerks, ${receipts} in den Belegen hier.`,
  booksHint: 'Eine Datei mit Belegen ging verloren oder wurde geändert. Es gelten die Bücher.',
  search: 'Suche',
  searchReceipts: 'Modell oder Regeln',
  searchJobs: 'Modell, Grund oder Job',
  all: 'Alle',
  onlyDrift: 'Nur die, die nicht stimmen',
  receiptsFound: (n: string) => (n === '1' ? '1 Beleg' : `${n} Belege`),
  sum: (llama: string, waifu: string) => `${llama} Llama- und ${waifu} Waifu-Punkte`,
  noneFound: 'Nichts passt.',
  jobsTitle: 'Frühere Jobs',
  jobsNone:
    'Jeder beendete Job hinterlässt hier eine Zeile: was daraus wurde und wo die Zeit blieb.',
  jobsKept: 'Die letzten 50.000 Jobs bleiben.',
  outcome: 'Ausgang',
  outcomes: {
    paid: 'Bezahlt',
    late: 'Zu spät',
    failed: 'Gescheitert',
    handed_back: 'Zurückgegeben',
    withdrawn: 'Zurückgezogen',
    refused: 'Nicht angenommen',
  },
  took: 'Dauer',
  reason: 'Warum',
  stages: {
    loading_ms: 'laden',
    waiting_ms: 'warten',
    computing_ms: 'rechnen',
    sending_ms: 'senden',
  },
  older: 'Ältere anzeigen',
  sensors: 'Sensoren',
  span: 'Wie weit zurück',
  telemetry: { ten_minutes: '10 Minuten', day: '24 Stunden', month: '30 Tage' },
  sensorsNone: 'Die Sensoren werden beim Mining aufgezeichnet. In diesem Zeitraum gibt es nichts.',
  sensorRows: (n: number) => `Die letzten ${n} Zeilen; die Kurven zeigen alle.`,
  sensorsHelp: (device: string) =>
    `${device}, beim Mining aufgezeichnet. Die letzten 10 Minuten überstehen einen Absturz.`,
  charts: {
    temperature: 'Temperatur',
    power: 'Leistung',
    memory: 'Speicher',
    load: 'Auslastung',
    tokens: 'Token pro Sekunde',
    pictures: 'Bilder pro Minute',
    llama: 'Llama-Punkte',
    waifu: 'Waifu-Punkte',
  },
  estimated: 'geschätzt',
  lineSummary: (what: string, latest: string, low: string, high: string) =>
    `${what}: zuletzt ${latest}, niedrigster Wert ${low}, höchster ${high}.`,
  upTo: (value: string) => `Skala bis ${value}`,
  noSensor: 'Kein Sensor',
  empty: 'Noch keine Punkte. Drück in der Übersicht auf Start; der erste Beleg erscheint hier.',
  failed: 'Die Aufzeichnungen konnten nicht gelesen werden',
};

export const help: Catalogue['help'] = {
  title: 'Hilfe',
  logs: 'Protokoll',
  logsHelp:
    'Was das Programm getan hat, das Neueste zuerst. Adressen und Namen sind gekürzt. Die Zeilen selbst sind englisch.',
  show: 'Protokoll zeigen',
  hide: 'Protokoll verbergen',
  level: 'Mindestens',
  levels: {
    trace: 'Alles',
    debug: 'Einzelheiten',
    info: 'Normal',
    warn: 'Warnungen',
    error: 'Fehler',
  },
  day: 'Tag (UTC)',
  anyDay: 'Jeder Tag',
  search: 'Suche',
  refresh: 'Aktualisieren',
  save: 'Als Datei speichern',
  copy: 'Diese Zeilen kopieren',
  none: 'Keine Zeile passt.',
  more: 'Auch ältere Zeilen passen. Such genauer oder speicher alle als Datei.',
  bundle: 'Paket für den Support',
  bundleHelp:
    'Eine Datei mit Prüfungen, Einstellungen, Protokoll und Sensoren. Ohne Schlüssel, ohne Prompts und ohne ganze Adressen.',
  bundleSave: 'Paket speichern',
  saved: (path: string) => `Gespeichert als ${path}`,
  list: 'Zeilen des Protokolls',
};
