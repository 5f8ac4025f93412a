// The words about newer versions and notifications, in German.

import type { Catalogue } from '../language.svelte';

export const update: Catalogue['update'] = {
  title: 'Neuere Versionen',
  refused: 'Das ging nicht',
  problem: 'Kein Update',
  runs: (version) => `Version ${version} läuft.`,
  nowhere: 'Diese Version aktualisiert sich nicht selbst.',
  notYet: 'Nach neueren Versionen wurde noch nicht gesucht.',
  latest: (at) => `Das ist die neueste, Stand ${at}.`,
  check: 'Jetzt suchen',
  looking: 'Sucht',
  fetching: (version, done, of) => `Lädt ${version}: ${done} von ${of}.`,
  ready: (version) => `Neurino ${version} ist bereit.`,
  between:
    'Es installiert sich zwischen zwei Jobs, sobald dieses Fenster zu ist oder zehn Minuten lang nicht vorn war.',
  put: (version, at) => `Neurino ${version} ist bereit und wartet bis ${at}.`,
  byHand: (version) => `Neurino ${version} ist da und geprüft. Dieser Befehl installiert es:`,
  copyCommand: 'Den Befehl kopieren',
  installing: (version) =>
    `Neurino ${version} wird installiert, sobald kein Job mehr läuft. Danach startet es von selbst wieder.`,
  takenBack: (version) =>
    `Neurino ${version} kam nicht in Gang, deshalb ist die Version davor wieder da.`,
  install: 'Jetzt installieren',
  again: 'Noch einmal versuchen',
  dismiss: 'Verstanden',
  later: 'Später',
  whatsNew: 'Was ist neu?',
  checkAlways: 'Nach neueren Versionen suchen',
  checkAlwaysHelp:
    'Standard: an. Alle sechs Stunden; was sich findet, wird geladen und geprüft. Nach dem Katalog der Modelle einmal am Tag.',
  byItself: 'Zwischen zwei Jobs installieren',
  byItselfHelp:
    'Standard: an. Nur wenn kein Job läuft und das Fenster zu ist oder zehn Minuten lang nicht vorn war; danach geht das Mining weiter. Eine Version, die nicht in Gang kommt, wird zurückgenommen.',
  backTo: (version) => `Version ${version} ist aufgehoben.`,
  backHelp:
    'Laufende Jobs werden erst fertig. Zurückgehen startet Neurino neu; von selbst installiert wird danach nichts mehr.',
  back: 'Zurückgehen',
  backNow: 'Zurückgehen und neu starten',
  stay: 'Bleiben',
};

export const antivirus: Catalogue['antivirus'] = {
  title: 'Mein Virenschutz schlägt an',
  words: [
    'Virenschutzprogramme misstrauen allem, was im Hintergrund die Grafikkarte beschäftigt und mit einem Netzwerk spricht, denn unerwünschte Mining-Programme tun dasselbe. Neurino schürft keine Währung: Es berechnet Texte und Bilder und enthält kein fremdes Programm.',
    'Prüf, ob dein Download der echte ist: Neben jeder Ausgabe liegt SHA256SUMS. Unter Windows muss `Get-FileHash` mit dem Installationsprogramm dieselben Ziffern liefern; unter Linux prüft `sha256sum --check SHA256SUMS`. Weichen sie ab, lösch die Datei.',
    'Stimmen sie, hol die Datei aus der Quarantäne und nimm den Ordner aus, in dem Neurino installiert ist, nicht das ganze Laufwerk. Sag dann dem Hersteller, dass es ein Fehlalarm ist: Jeder hat dafür ein Formular, Windows Defender unter microsoft.com/wdsi/filesubmission.',
    'Ist das Programm weg, das rechnet, oder lässt dein System es niemanden starten, hält das Mining an und sagt es: Hol es aus der Quarantäne zurück oder installier Neurino neu. Schlüssel, Punkte und Modelle bleiben, wo sie sind.',
  ],
};

export const notices: Catalogue['notices'] = {
  title: 'Mitteilungen',
  intro: 'Was dein Desktop dir sagt, alles nur einmal.',
  refused: 'Die Mitteilungen bleiben, wie sie waren',
  needsYou: 'Neurino braucht dich',
  needsYouHelp: 'Standard: an. Das Mining geht erst weiter, wenn du dich um etwas gekümmert hast.',
  paused: 'Eine Regel hat das Mining pausiert',
  pausedHelp: 'Standard: aus. Mit dem Grund.',
  firstPoints: 'Die ersten Punkte des Tages',
  firstPointsHelp: 'Standard: aus.',
  weekly: 'Was die Woche gebracht hat',
  weeklyHelp:
    'Standard: aus. Wenn eine Woche des Netzwerks vorbei ist, am Donnerstag um 00:00 UTC, oder beim ersten Start danach.',
  update: 'Eine neuere Version ist bereit',
  updateHelp: 'Standard: aus.',
  model: 'Ein Modell ist bereit',
  modelHelp: 'Standard: aus. Wenn ein Download fertig und geprüft ist.',
  jobsFail: 'Jobs schlagen fehl',
  jobsFailHelp: 'Standard: aus. Drei hintereinander.',
  alerts: 'Hinweise',
  alertsHelp: 'Standard: aus. Was die Übersicht als Hinweis zeigt.',
  hotkey: 'Was das Tastenkürzel bewirkt hat',
  hotkeyHelp: 'Standard: an. Nur, wenn du es gedrückt hast.',
  test: 'Zur Probe senden',
  sent: 'Gesendet',
};
