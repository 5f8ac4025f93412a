// Sentences that the program makes in English and that carry no code of their own, with their
// German. `{}` is what the program puts in; `{0}` and so on say where it goes. A test reads the
// program's sources and wants every sentence of theirs here (tests/unit/phrases.test.ts).

import { phrases as cards } from './de-phrases-cards';
import { phrases as catalogue } from './de-phrases-catalogue';
import { phrases as hotkey } from './de-phrases-hotkey';
import { phrases as own } from './de-phrases-own';
import { phrases as models } from './de-phrases-models';
import { phrases as network } from './de-phrases-network';
import { phrases as power } from './de-phrases-power';
import { phrases as update } from './de-phrases-update';
import { phrases as wallet } from './de-phrases-wallet';

/** English pattern, German words. */
export type Phrase = readonly [english: string, german: string];

const machine: readonly Phrase[] = [
  // The check of this machine.
  ['Content filter', 'Inhaltsfilter'],
  ['GPU driver', 'Grafiktreiber'],
  ['GPU', 'Grafikkarte'],
  ['Video memory', 'Grafikspeicher'],
  ['Disk', 'Laufwerk'],
  ['Key store', 'Schlüsselspeicher'],
  ['Network', 'Netzwerk'],
  ['Models', 'Modelle'],
  [
    'Off: whatever the network asks for is computed; `refuse_words` in settings.toml turns it on.',
    'Aus: Gerechnet wird, was das Netzwerk verlangt; `refuse_words` in settings.toml schaltet ihn ein',
  ],
  [
    'On: jobs with one of {} words or phrases are left to others.',
    'An: Jobs mit einem von {0} Wörtern oder Wendungen bleiben anderen überlassen',
  ],
  [
    '{} is there, but this build has no NVIDIA engine.',
    '{0} ist da, aber diese Ausgabe von Neurino kann nicht auf NVIDIA-Karten rechnen',
  ],
  [
    'install the released package, or build with the feature `cuda`',
    'installiere das veröffentlichte Paket oder baue mit dem Feature `cuda`',
  ],
  [
    'None in use; the processor computes ({}, {} threads).',
    'keine in Gebrauch; der Prozessor rechnet ({0}, {1} Threads)',
  ],
  ['{} can compute.', '{0} kann rechnen'],
  ['{} of video memory, {} in use.', '{0} Grafikspeicher, davon {1} belegt'],
  ['An unknown amount', 'Unbekannt viel'],
  ['an unknown part', 'unbekannt viel'],
  [
    "small models run; the network's larger ones need 8 GiB or more",
    'kleine Modelle laufen; die größeren des Netzwerks brauchen 8 GiB oder mehr',
  ],
  [
    'No video memory; {} of main memory, {} free.',
    'kein Grafikspeicher; {0} Arbeitsspeicher, davon {1} frei',
  ],
  ['close other programs', 'schließ andere Programme'],
  ['{} free in {}.', '{0} frei in {1}'],
  [
    'free some space, or keep the models elsewhere with NEURINO_MODELS',
    'schaff etwas Platz oder leg die Modelle mit NEURINO_MODELS woanders hin',
  ],
  [
    '{} is there and is no ordinary file; name another one',
    '{0} ist da und keine gewöhnliche Datei; nenn eine andere',
  ],
  [
    '{} is a link that leads nowhere; name another file',
    '{0} ist ein Verweis ins Leere; nenn eine andere Datei',
  ],
  ['{} cannot be used: {}.', '{0} lässt sich nicht nutzen: {1}'],
  [
    'choose another folder with NEURINO_HOME or NEURINO_MODELS',
    'wähle mit NEURINO_HOME oder NEURINO_MODELS einen anderen Ordner',
  ],
  [
    'The identity key cannot be opened: {}.',
    'der Schlüssel der Identität lässt sich nicht öffnen: {0}',
  ],
  [
    'nothing was overwritten; put the key back where it was',
    'nichts wurde überschrieben; leg den Schlüssel wieder dorthin, wo er war',
  ],
  [
    'check that this user may write there, or choose another folder with NEURINO_HOME',
    'prüf, ob du dort schreiben darfst, oder wähle mit NEURINO_HOME einen anderen Ordner',
  ],
  [
    'quit the other program that uses the keys, or wait for it',
    'beende das andere Programm, das die Schlüssel nutzt, oder warte darauf',
  ],
  [
    'nothing was overwritten; unlock the key store and try again',
    'nichts wurde überschrieben; entsperr den Schlüsselspeicher und versuch es noch einmal',
  ],
  ['The identity key is kept in {} ({}).', 'der Schlüssel der Identität liegt {0} ({1})'],
  ['The identity key is kept in {}.', 'der Schlüssel der Identität liegt {0}'],
  ['The identity key is kept in {}{}.', 'der Schlüssel der Identität liegt {0}{1}'],
  [
    'for more protection, set NEURINO_PASSPHRASE_FILE before the first start or use a desktop with a key store',
    'für mehr Schutz setz vor dem ersten Start NEURINO_PASSPHRASE_FILE oder nimm einen Desktop mit Schlüsselspeicher',
  ],
  [
    'The practice network runs on this machine and needs no internet.',
    'das Übungsnetzwerk läuft auf diesem Rechner und braucht kein Internet',
  ],
  [
    'The practice network needs no internet; its port {} is free.',
    'das Übungsnetzwerk braucht kein Internet; sein Port {0} ist frei',
  ],
  [
    'Port {} is taken, perhaps by a running Neurino; the practice network takes another one.',
    'Port {0} ist belegt, vielleicht von einem laufenden Neurino; das Übungsnetzwerk nimmt einen anderen',
  ],
  [
    'set `listen_port` in settings.toml if programs rely on that port',
    'setz `listen_port` in settings.toml, wenn Programme auf diesen Port angewiesen sind',
  ],
  ['The coordinator at {} answers.', 'der Koordinator unter {0} antwortet'],
  [
    'Something at {} answers, but not as a coordinator ({}).',
    'unter {0} antwortet etwas, aber kein Koordinator ({1})',
  ],
  ['A node refuses this address: {}.', 'ein Knoten nimmt diese Adresse nicht: {0}'],
  [
    'correct `coordinator` in settings.toml, or NEURINO_NETWORK',
    'berichtige `coordinator` in settings.toml oder NEURINO_NETWORK',
  ],
  ['check the address', 'prüf die Adresse'],
  ['Nobody answers at {}.', 'unter {0} antwortet niemand'],
  ['check the address and the internet connection', 'prüf die Adresse und die Internetverbindung'],
  ['The model library in {} is not there.', 'die Modellbibliothek in {0} ist nicht da'],
  [
    'connect its drive, or choose another folder with `neurino models move FOLDER`',
    'schließ ihr Laufwerk an oder wähl mit `neurino models move ORDNER` einen anderen Ordner',
  ],
  [
    'the folder of the model library, `{}`, is not there; connect its drive, or choose another folder with `neurino models move FOLDER`',
    'der Ordner der Modellbibliothek, `{0}`, ist nicht da; schließ ihr Laufwerk an oder wähl mit `neurino models move ORDNER` einen anderen Ordner',
  ],
  ['No model is on this machine yet.', 'auf diesem Rechner ist noch kein Modell'],
  [
    'press Start, or run `neurino models get smollm2-135m-instruct`',
    'drück auf Start oder gib `neurino models get smollm2-135m-instruct` ein',
  ],
  ['On this machine: {}.', 'auf diesem Rechner: {0}'],
  // The driver of the card.
  ['it sees no card although one is on the bus', 'er sieht keine Karte, obwohl eine da ist'],
  [
    'its library does not reach the kernel driver',
    'seine Bibliothek erreicht den Kernel-Treiber nicht',
  ],
  ['The NVIDIA driver {} is ready (CUDA {}).', 'der NVIDIA-Treiber {0} ist bereit (CUDA {1})'],
  [
    'This machine has no NVIDIA card, so jobs run on the processor.',
    'dieser Rechner hat keine NVIDIA-Karte, also laufen Jobs auf dem Prozessor',
  ],
  [
    'There is an NVIDIA card in this machine, but no NVIDIA driver runs, so jobs run on the processor.',
    'in diesem Rechner steckt eine NVIDIA-Karte, aber kein NVIDIA-Treiber läuft; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'There are {} NVIDIA cards in this machine, but no NVIDIA driver runs, so jobs run on the processor.',
    'in diesem Rechner stecken {0} NVIDIA-Karten, aber kein NVIDIA-Treiber läuft; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'No NVIDIA driver is installed, so jobs run on the processor.',
    'kein NVIDIA-Treiber ist installiert, also laufen Jobs auf dem Prozessor',
  ],
  [
    'There is an NVIDIA card in this machine, but the driver `{}` holds it, which cannot compute, so jobs run on the processor.',
    'in diesem Rechner steckt eine NVIDIA-Karte, aber der Treiber `{0}` hält sie, der nicht rechnen kann; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'The NVIDIA kernel driver {} runs, but its library (libnvidia-ml) is missing, so jobs run on the processor.',
    'der NVIDIA-Kernel-Treiber {0} läuft, aber seine Bibliothek (libnvidia-ml) fehlt; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'The NVIDIA driver was updated and the machine has not been restarted since, so jobs run on the processor.',
    'der NVIDIA-Treiber wurde aktualisiert und der Rechner seitdem nicht neu gestartet; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'The NVIDIA driver {} is too old: CUDA {} is needed, so jobs run on the processor.',
    'der NVIDIA-Treiber {0} ist zu alt: CUDA {1} ist nötig; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'The NVIDIA driver {}{} is too old: CUDA {} is needed, so jobs run on the processor.',
    'der NVIDIA-Treiber {0}{1} ist zu alt: CUDA {2} ist nötig; darum laufen Jobs auf dem Prozessor',
  ],
  [
    'The NVIDIA driver does not work ({}), so jobs run on the processor.',
    'der NVIDIA-Treiber funktioniert nicht ({0}), also laufen Jobs auf dem Prozessor',
  ],
  [
    "If this machine has an NVIDIA card, install NVIDIA's driver and restart.",
    'Wenn dieser Rechner eine NVIDIA-Karte hat, installiere den Treiber von NVIDIA und starte neu',
  ],
  [
    "Install NVIDIA's driver, version 525 or newer, and restart.",
    'Installiere den Treiber von NVIDIA, Version 525 oder neuer, und starte neu',
  ],
  [
    "Install NVIDIA's driver, version 525 or newer, in place of that one, and restart.",
    'Installiere statt dessen den Treiber von NVIDIA, Version 525 oder neuer, und starte neu',
  ],
  [
    'Install the rest of the driver (on Debian the package libnvidia-ml1), or start the container with the NVIDIA runtime.',
    'Installiere den Rest des Treibers (unter Debian das Paket libnvidia-ml1) oder starte den Container mit der NVIDIA-Runtime',
  ],
  ['Restart the machine.', 'Starte den Rechner neu'],
  [
    "Install NVIDIA's driver, version 525 or newer.",
    'Installiere den Treiber von NVIDIA, Version 525 oder neuer',
  ],
  [
    'Restart the machine; if that does not help, install the driver anew.',
    'Starte den Rechner neu; wenn das nicht hilft, installiere den Treiber noch mal',
  ],
  // Devices.
  ['The settings choose the processor.', 'In den Einstellungen ist der Prozessor gewählt'],
  [
    'This build of Neurino has no NVIDIA engine, so the processor computes.',
    'Diese Ausgabe von Neurino kann nicht auf NVIDIA-Karten rechnen, also rechnet der Prozessor',
  ],
  [
    'Not used: the settings choose another device.',
    'Nicht in Gebrauch: In den Einstellungen ist ein anderes Gerät gewählt',
  ],
  [
    'Not used: this build of Neurino has no NVIDIA engine.',
    'Nicht in Gebrauch: Diese Ausgabe von Neurino kann nicht auf NVIDIA-Karten rechnen',
  ],
  // Start and settings.
  ['Neurino is closing.', 'Neurino wird gerade beendet'],
  ['Nothing was changed.', 'Nichts wurde geändert'],
  [
    'This program is told what to do by its caller; it has no rules.',
    'Dieses Programm wird von außen gesteuert und hat keine Regeln',
  ],
  ['This program runs without a window.', 'Dieses Programm läuft ohne Fenster'],
  ['the receipts could not be read', 'die Belege konnten nicht gelesen werden'],
  ['run `neurino doctor`', 'gib `neurino doctor` ein'],
  ['mining cannot start: {}', 'das Mining kann nicht starten: {0}'],
  ['the person stopped', 'von dir angehalten'],
  ['the person paused', 'von dir pausiert'],
  ['a game, started', 'ein Spiel wurde gestartet'],
  ['the identity key cannot be opened', 'der Schlüssel der Identität lässt sich nicht öffnen'],
  ['the model library cannot be opened', 'die Modellbibliothek lässt sich nicht öffnen'],
  [
    'the record of receipts cannot be opened',
    'die Aufzeichnung der Belege lässt sich nicht öffnen',
  ],
  ['the practice network cannot start', 'das Übungsnetzwerk kann nicht starten'],
  [
    'port {} on this machine cannot be used for the gateway; choose another one, or 0 for any, with --port or `listen_port` in settings.toml',
    'Port {0} dieses Rechners lässt sich für das Gateway nicht nutzen; wähle mit --port oder `listen_port` in settings.toml einen anderen, oder 0 für irgendeinen',
  ],
  [
    '`{}` cannot be used; check the free space and that this user may write there',
    '`{0}` lässt sich nicht nutzen; prüf, ob Platz frei ist und du dort schreiben darfst',
  ],
  ['the gateway cannot start: {}', 'das Gateway kann nicht starten: {0}'],
  ["the program's own file cannot be found: {}", 'die Programmdatei ist nicht zu finden: {0}'],
  ['The application gave no state.', 'Das Programm gab keinen Zustand heraus'],
  ['The window is gone.', 'Das Fenster ist weg'],
  [
    'this system has no place for programs that start with it',
    'auf diesem System kann Neurino nicht mit dem Computer starten',
  ],
  [
    'the list of programs that start with Windows: {}',
    'die Liste der Programme, die mit Windows starten: {0}',
  ],
  ['{} cannot be changed: {}', '{0} lässt sich nicht ändern: {1}'],
  [
    'this user has no home folder; set NEURINO_HOME to a folder that Neurino may write to',
    'dieser Benutzer hat keinen eigenen Ordner; setz NEURINO_HOME auf einen Ordner, in den Neurino schreiben darf',
  ],
  [
    '`{}` cannot be used as a folder; give an absolute path in {}',
    '`{0}` taugt nicht als Ordner; gib in {1} einen ganzen Pfad an',
  ],
  [
    'cannot create the {} folder `{}`; free the path, or set NEURINO_HOME to a folder that you may write to',
    'der Ordner `{1}` lässt sich nicht anlegen; mach den Pfad frei oder setz NEURINO_HOME auf einen Ordner, in den du schreiben darfst',
  ],
  [
    'cannot read `{}`; check that this user may read it',
    '`{0}` lässt sich nicht lesen; prüf, ob du es lesen darfst',
  ],
  [
    '`{}` is not written in UTF-8; open it in an editor and save it as UTF-8',
    '`{0}` ist nicht in UTF-8 geschrieben; öffne die Datei in einem Editor und speichere sie als UTF-8',
  ],
  [
    'cannot write `{}`; check the free space and that this user may write there',
    '`{0}` lässt sich nicht schreiben; prüf, ob Platz frei ist und du dort schreiben darfst',
  ],
  [
    '`{}` is not a valid settings file: correct the line shown, or remove the file',
    '`{0}` ist keine gültige Einstellungsdatei: Berichtige die gezeigte Zeile oder entferne die Datei',
  ],
  ['`{}` is not a valid {}: {}', '`{0}` ist nicht gültig als {1}: {2}'],
  [
    'Neurino is already running with `{}` (process {}); use that one, or quit it first',
    'Neurino läuft schon mit `{0}` (Prozess {1}); nimm das oder beende es erst',
  ],
  [
    'Neurino is already running with `{}`{}; use that one, or quit it first',
    'Neurino läuft schon mit `{0}`{1}; nimm das oder beende es erst',
  ],
  // Rules.
  ['{} must be between {} and {}, not {}', '{0} müssen zwischen {1} und {2} liegen, nicht {3}'],
  [
    'the temperature to go on at ({} °C) must be at least 3 °C below the one to stop at ({} °C)',
    'die Temperatur zum Weitermachen ({0} °C) muss mindestens 3 °C unter der zum Anhalten ({1} °C) liegen',
  ],
  [
    'a list of programs may have {} entries, not {}; remove some',
    'eine Liste darf {0} Programme haben, nicht {1}; entferne einige',
  ],
  [
    "`{}` is no program's name; give its file name, for example `game.exe`",
    '`{0}` ist kein Programmname; gib den Dateinamen an, zum Beispiel `game.exe`',
  ],
  ['the minutes without input', 'die Minuten ohne Eingabe'],
  ['the temperature to stop at', 'die Grad zum Anhalten'],
  ['the temperature to go on at', 'die Grad zum Weitermachen'],
  ['the seconds after a game', 'die Sekunden nach einem Spiel'],
  // Records and files.
  ['the records could not be read', 'die Aufzeichnungen konnten nicht gelesen werden'],
  ['the bundle is written elsewhere', 'das Paket wird woanders geschrieben'],
  ['local time', 'Ortszeit'],
  [
    'Check the free space and that you may write there.',
    'Prüf, ob Platz frei ist und du dort schreiben darfst',
  ],
  ['the bundle could not be written', 'das Paket konnte nicht geschrieben werden'],
  ['{} cannot be written: {}', '{0} lässt sich nicht schreiben: {1}'],
  [
    'the currency is one to eight characters, such as EUR',
    'die Währung hat ein bis acht Zeichen, etwa EUR',
  ],
  [
    'the price of a kilowatt hour is 0 to 1000000',
    'der Preis einer Kilowattstunde liegt zwischen 0 und 1000000',
  ],
  ['note the new folder', 'den neuen Ordner merken'],
];

/** All of them. */
export const phrases: readonly Phrase[] = [
  ...machine,
  ...cards,
  ...catalogue,
  ...own,
  ...hotkey,
  ...models,
  ...network,
  ...power,
  ...update,
  ...wallet,
];
