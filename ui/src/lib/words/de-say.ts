// What the program says of itself, in German: from the codes that stand beside its English
// sentences. Each code of each enum has its words here, or this file does not compile.

import type {
  Cause,
  Clock,
  CurrentJob,
  Ending,
  JobStage,
  Lifted,
  MiningSaying,
  NetworkStatus,
  NoCard,
  NoJob,
  Preparing,
  Saying,
  SkipCount,
  Strictness,
} from '../api/types';
import { against, memorySize } from '../format';
import { phrase, sentenced, told } from './say-tools';

/** Words for each code of a tagged enum. */
export type Said<Enum, Tag extends keyof Enum> = {
  [Code in Enum[Tag] & string]: (said: Extract<Enum, Record<Tag, Code>>) => string;
};

const DAYS = ['Mo', 'Di', 'Mi', 'Do', 'Fr', 'Sa', 'So'] as const;

export const causes: Said<Cause, 'cause'> = {
  crash: () => 'Neurino ist beim Minen ohne ein Wort abgebrochen',
  game: ({ program, sign }) =>
    sign === 'full_screen'
      ? `${program} läuft im Vollbild`
      : sign === 'card_load'
        ? `${program} nutzt die Grafikkarte`
        : `${program} läuft`,
  cool_down: ({ program }) => `${program} lief gerade noch`,
  exclusive: ({ program, device }) =>
    `${program} läuft und hat ${device === 'gpu' ? 'die Grafikkarte' : 'den Prozessor'} für sich`,
  battery: () => 'der Rechner läuft im Akkubetrieb',
  other_user: () => 'jemand anderes benutzt den Rechner gerade',
  hot: ({ reached_c }) => `die Grafikkarte hat ${reached_c} °C erreicht`,
  in_use: () => 'du benutzt den Rechner gerade',
  away_unknown: () => 'dieses System verrät nicht, ob du weg bist',
  schedule: ({ cheap_only }) =>
    cheap_only
      ? 'der Strom ist zu dieser Stunde nicht günstig'
      : 'diese Stunde steht nicht in deinem Zeitplan',
  metered: () => 'das Netzwerk ist getaktet',
  update: () => 'eine andere Version von Neurino wird gleich installiert',
  moving: () => 'die Bibliothek der Modelle zieht in einen anderen Ordner um',
};

export const endings: Said<Ending, 'end'> = {
  also: ({ cause }) => `Außerdem: ${causeWords(cause)}.`,
  checked: () => 'Sieh nach, ob mit dem Rechner alles stimmt, dann geht es weiter.',
  game_gone: ({ after_secs }) =>
    after_secs === 0
      ? 'Weiter geht es, sobald es beendet ist.'
      : `Weiter geht es ${spell(after_secs)} nach seinem Ende.`,
  program_ends: () => 'Weiter geht es, wenn es beendet ist.',
  own_session: () => 'Weiter geht es, sobald du wieder vorn angemeldet bist.',
  mains: () => 'Weiter geht es am Netzstrom.',
  cooled: ({ resume_c }) => `Weiter geht es bei ${resume_c} °C.`,
  idle: ({ minutes }) => `Weiter geht es nach ${spell(minutes * 60)} ohne Maus und Tastatur.`,
  other_rule: () => 'Wähle in den Einstellungen eine andere Regel.',
  no_hour: () => 'Keine Stunde der Woche ist erlaubt.',
  other_network: () => 'Weiter geht es in einem anderen Netzwerk.',
  updated: () => 'Weiter geht es, sobald sie läuft.',
  moved: () => 'Weiter geht es nach dem Umzug.',
  at: ({ time }) => `Weiter geht es ${time.day === null ? 'um ' : ''}${clockWords(time)}.`,
  unknown: () => '',
};

export const strictness: Record<Strictness, string> = {
  cooling: 'Kühlt ab, keine neuen Jobs',
  finishing: 'Schließt den laufenden Job ab, dann Pause',
  paused: 'Pausiert',
};

export const sayings: Said<Saying, 'say'> = {
  mining: () => 'Das Mining läuft.',
  stopped: ({ rules_wait }) =>
    rules_wait
      ? 'Kein Mining. Deine Regeln starten nichts, bevor du auf Start drückst.'
      : 'Kein Mining. Drück auf Start, um Punkte zu verdienen.',
  finishing: () => 'Schließt den laufenden Job ab und hält dann an.',
  snoozed: ({ until }) =>
    until === null
      ? 'Von dir pausiert, bis du weitermachst.'
      : `Von dir pausiert bis ${clockWords(until)}.`,
  held: ({ how, cause, end }) =>
    `${strictness[how]}: ${causeWords(cause)}. ${endingWords(end)}`.trim(),
};

export const lifted: Said<Lifted, 'rule'> = {
  away: () => 'die Regel zur Abwesenheit, bis du wieder deinen Regeln folgst',
  schedule: () => 'deinen Zeitplan, bis du wieder deinen Regeln folgst',
  battery: () => 'die Regel zum Akku, bis wieder Netzstrom da ist',
  metered: () => 'die Regel zu getakteten Netzwerken, bis du dieses verlässt',
  other_user: () => 'die Regel zu anderen Leuten am Rechner, bis sie weg sind',
  hot: () => 'die Regel zur Temperatur, bis die Karte abgekühlt ist',
  update: () => 'die andere Version von Neurino, die dann später installiert wird',
  game: ({ program }) => `den Spielschutz für ${program}, bis es beendet ist`,
  exclusive: ({ program }) => `die Regel zu ${program}, bis es beendet ist`,
};

export const preparing: Said<Preparing, 'what'> = {
  looking: () => 'sieht nach, welche Modelle da sind',
  checking: () => 'prüft die Dateien des Modells',
  fetching: ({ percent }) => `holt das Startmodell (${percent} %)`,
  paused: ({ percent }) => `wartet auf den Download, den du pausiert hast (${percent} %)`,
  unpacking: () => 'packt das Bildmodell aus',
  connecting: ({ attempt }) => `verbindet sich, Versuch ${attempt}`,
  loading: ({ model, percent, warm_percent }) => {
    if (warm_percent !== null) return `richtet ${model} für diesen Rechner ein (${warm_percent} %)`;
    return percent === null ? `lädt ${model}` : `lädt ${model} (${percent} %)`;
  },
};

export const skips: Said<SkipCount, 'why'> = {
  model: ({ jobs, model }) => `${jobs} ${jobs === 1 ? 'braucht' : 'brauchen'} ${model}`,
  memory: ({ jobs, memory_bytes }) =>
    `${jobs} ${jobs === 1 ? 'braucht' : 'brauchen'} ${memorySize(memory_bytes)}`,
  failed: ({ jobs }) => `${jobs} ${jobs === 1 ? 'ist' : 'sind'} hier schon gescheitert`,
  files: ({ jobs, model }) =>
    `${jobs} ${jobs === 1 ? 'braucht' : 'brauchen'} ${model}, dessen Dateien nicht gezeigt werden konnten`,
  shared: ({ jobs, model }) =>
    `${jobs} ${jobs === 1 ? 'braucht' : 'brauchen'} ${model} auf einer eigenen Karte`,
};

/** What stands beside a miner's saying. */
export interface Beside {
  network: NetworkStatus;
  job: CurrentJob | null;
  /** What the decision in force says. */
  decided: Saying;
}

type MiningWords = {
  [Code in MiningSaying['say']]: (
    said: Extract<MiningSaying, { say: Code }>,
    beside: Beside,
  ) => string;
};

export const mining: MiningWords = {
  decided: (_, { decided }) => sayingWords(decided),
  stopped: () => 'Kein Mining. Drück auf Start, um Punkte zu verdienen.',
  starting: ({ what, problem }) => {
    const doing = what ? `: ${preparingWords(what)}` : '';
    return problem
      ? `${sentenced(told(problem))} Macht sich wieder bereit${doing}.`
      : `Macht sich bereit${doing}.`;
  },
  connecting: (_, { network }) => `Verbindet sich mit ${networkWords(network)}.`,
  waiting: ({ notice, no_job }, { network }) => {
    const why = notice
      ? sentenced(told(notice))
      : no_job
        ? noJobWords(no_job)
        : 'Wartet auf einen Job.';
    return `Verbunden mit ${networkWords(network)}. ${why}`;
  },
  advised: ({ model, jobs }) => {
    if (jobs === 0)
      return `Lädt ${model}: danach wird mehr gefragt als nach dem zuletzt geladenen.`;
    return jobs === 1
      ? `Lädt ${model}: 1 Job wartet darauf.`
      : `Lädt ${model}: ${jobs} Jobs warten darauf.`;
  },
  resting: (_, { network }) =>
    `Verbunden mit ${networkWords(network)}. Gerade fragt niemand nach deinen Modellen: Der Speicher bleibt frei, bis ein Job kommt.`,
  working: (_, { network, job }) =>
    job
      ? workingWords(job, network)
      : `Verbunden mit ${networkWords(network)}. Wartet auf einen Job.`,
  handing_back: ({ jobs }) =>
    jobs === 1
      ? 'Hält an: gibt den laufenden Job zurück.'
      : `Hält an: gibt ${jobs} laufende Jobs zurück.`,
  no_card: ({ no_card }) => noCardWords(no_card),
  finishing: ({ again }, { job }) => {
    if (!job) return again ? 'Macht mit deiner Änderung weiter.' : 'Schließt ab und hält dann an.';
    const last = job.jobs > 1 ? `die letzten ${job.jobs} Jobs` : 'den letzten Job';
    const then = again ? 'macht dann mit deiner Änderung weiter' : 'hält dann an';
    return `Schließt ${last} ab und ${then}: ${progressWords(job)}.`;
  },
  problem: ({ error }) =>
    error
      ? `Wegen eines Problems angehalten: ${sentenced(told(error))}`
      : 'Wegen eines Problems angehalten.',
};

const stages: Record<JobStage, (job: CurrentJob, network: NetworkStatus) => string> = {
  loading: (job, network) => `Lädt ${job.model} für einen Job aus ${networkWords(network)}.`,
  running: (job, network) => {
    const what =
      job.jobs > 1
        ? `${job.jobs} ${job.kind === 'image' ? 'Bild-Jobs' : 'Text-Jobs'}`
        : `einem ${job.kind === 'image' ? 'Bild-Job' : 'Text-Job'}`;
    return `Arbeitet an ${what} für ${networkWords(network, 'das')}: ${progressWords(job)}.`;
  },
  sending: (job, network) =>
    `Schickt ${job.kind === 'image' ? 'das Bild' : 'das Ergebnis eines Text-Jobs'} an ${networkWords(network, 'das')}.`,
};

/** Put after the state sentence while mining goes easy on whoever uses the computer. */
export const gentleWords = 'Rücksichtsvoll, solange du am Computer bist.';

export function sayingWords(said: Saying): string {
  return pick(sayings, said, said.say);
}

export function miningWords(said: MiningSaying, beside: Beside): string {
  const words = mining[said.say] as (said: MiningSaying, beside: Beside) => string;
  return words(said, beside);
}

/** What starting now would do. */
export function resumeWords(lifts: readonly Lifted[]): string {
  return lifts.length === 0
    ? 'Startet sofort wieder.'
    : `Startet sofort wieder und übergeht ${liftedWords(lifts)}.`;
}

/** What the person's choice sets aside. */
export function asideWords(lifts: readonly Lifted[]): string {
  return `Deine Wahl übergeht ${liftedWords(lifts)}.`;
}

export function noJobWords({ waiting, reasons = [] }: NoJob): string {
  if (reasons.length === 0) return 'Kein Job: Gerade fragt niemand etwas.';
  const rest = waiting - reasons.reduce((sum, { jobs }) => sum + jobs, 0);
  const words = reasons.map((reason) => pick(skips, reason, reason.why));
  if (rest > 0) {
    words.push(
      rest === 1 ? '1 weiterer braucht etwas anderes' : `${rest} weitere brauchen etwas anderes`,
    );
  }
  return `Kein Job: ${words.join(', ')}.`;
}

function pick<Enum, Tag extends keyof Enum>(
  words: Said<Enum, Tag>,
  said: Enum,
  code: Enum[Tag] & string,
): string {
  return (words[code] as unknown as (said: Enum) => string)(said);
}

/** Why downloads wait. */
export function downloadsWait(cause: Cause): string {
  return `Downloads warten: ${causeWords(cause)}.`;
}

function causeWords(cause: Cause): string {
  return pick(causes, cause, cause.cause);
}

function endingWords(end: Ending): string {
  return pick(endings, end, end.end);
}

function noCardWords(why: NoCard): string {
  switch (why.why) {
    case 'off':
      return 'Alle Karten sind ausgeschaltet. Schalte eine in den Einstellungen unter Karten ein.';
    case 'processor_off':
      return 'Der Prozessor ist ausgeschaltet, und es gibt keine Karte. Schalte ihn in den Einstellungen unter Karten ein.';
    case 'gone': {
      const whose = why.several
        ? 'Deine Karten antworten nicht mehr.'
        : `Deine Karte antwortet nicht mehr (${why.card}).`;
      const driver = why.driver ? ` ${sentenced(phrase(why.driver) ?? why.driver)}` : '';
      return `${whose}${driver} Neurino sucht sie; Mining geht von selbst weiter.`;
    }
  }
}

function preparingWords(what: Preparing): string {
  return pick(preparing, what, what.what);
}

function liftedWords(lifts: readonly Lifted[]): string {
  return lifts.map((lift) => pick(lifted, lift, lift.rule)).join(' und ');
}

function workingWords(job: CurrentJob, network: NetworkStatus): string {
  return stages[job.stage](job, network);
}

function networkWords(network: NetworkStatus, article: 'dem' | 'das' = 'dem'): string {
  return network.practice ? `${article} Übungsnetzwerk` : network.name;
}

function progressWords(job: CurrentJob): string {
  const done = job.kind === 'image' ? `Schritt ${job.done} von ${job.of}` : `${job.done} Token`;
  const whose = job.jobs > 1 ? ' beim ältesten' : '';
  return `${done}, ${against(job.elapsed_ms, job.budget_ms)}${whose}`;
}

function clockWords({ day, minute }: Clock): string {
  const two = (n: number) => n.toString().padStart(2, '0');
  const time = `${two(Math.floor(minute / 60))}:${two(minute % 60)} Uhr`;
  return day === null ? time : `${DAYS[day] ?? ''}, ${time}`;
}

function spell(seconds: number): string {
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}
