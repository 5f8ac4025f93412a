// Sentences of the library, downloads and the engine without a code of their own; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  // The library.
  ['that many connections are not possible', 'so viele Verbindungen gehen nicht'],
  ['choose 1 to 8', 'wähle 1 bis 8'],
  [
    'with so little bandwidth no download would end',
    'mit so wenig Bandbreite würde kein Download fertig',
  ],
  ['allow 0.1 Mbit/s or more', 'erlaube mindestens 0,1 Mbit/s'],
  ['a day has 24 hours', 'ein Tag hat 24 Stunden'],
  ['choose times from 00:00 to 23:59', 'wähle Zeiten von 00:00 bis 23:59'],
  ['`{}` is in memory, so it stays', '`{0}` ist im Speicher, also bleibt es'],
  [
    'stop mining first, or serve another model',
    'halte erst das Mining an oder biete ein anderes Modell an',
  ],
  ['the catalogue has no model `{}`', 'der Katalog hat kein Modell `{0}`'],
  ['that is not a whole path to a folder', 'das ist kein ganzer Pfad zu einem Ordner'],
  ['write it from the beginning, for example {}', 'schreib ihn von Anfang an, zum Beispiel {0}'],
  [
    'Downloads wait until the library has moved.',
    'Downloads warten, bis die Bibliothek verschoben ist.',
  ],
  ['Downloads wait: {}.', 'Downloads warten: {0}.'],
  [
    'the newer version is fetched when games and the like leave room for it',
    'die neuere Version wird geladen, wenn Spiele und Ähnliches Platz dafür lassen',
  ],
  ['the download of {} was cancelled', 'der Download von {0} wurde abgebrochen'],
  [
    'press Start to fetch it again, or fetch another model first',
    'drück auf Start, um es neu zu laden, oder lade erst ein anderes Modell',
  ],
  [
    'close other programs that use the memory, or choose a smaller model; it is tried again every ten minutes',
    'schließ andere Programme, die den Speicher nutzen, oder wähle ein kleineres Modell; alle zehn Minuten gibt es einen neuen Versuch',
  ],
  [
    'the engine failed three times in ten minutes with {}, so {} is served instead',
    'die Engine ist mit {0} dreimal in zehn Minuten gescheitert, deshalb wird nun {1} angeboten',
  ],
  [
    'the engine failed three times in ten minutes with {}, so jobs are computed one at a time',
    'die Engine ist mit {0} dreimal in zehn Minuten gescheitert, deshalb werden Jobs nun einzeln gerechnet',
  ],
  [
    'the engine failed three times in ten minutes with {}, also with one job at a time',
    'die Engine ist mit {0} dreimal in zehn Minuten gescheitert, auch mit nur einem Job auf einmal',
  ],
  [
    'start mining anew to try it again, or update the graphics driver',
    'starte das Mining neu, um es noch einmal zu versuchen, oder aktualisiere den Grafiktreiber',
  ],
  [
    'start mining anew to try several again, or update the graphics driver',
    'starte das Mining neu, um wieder mehrere zu versuchen, oder aktualisiere den Grafiktreiber',
  ],
  [
    'update the graphics driver, or fetch a smaller model; Start tries again',
    'aktualisiere den Grafiktreiber oder lade ein kleineres Modell; Start versucht es noch einmal',
  ],
  [
    "the engine's process did not give its memory back in time",
    'der Prozess der Engine gab seinen Speicher nicht rechtzeitig zurück',
  ],
  ['Downloads run from {} to {}.', 'Downloads laufen von {0} bis {1} Uhr.'],
  [
    'the folder of the library is set from outside',
    'der Ordner der Bibliothek ist von außen festgelegt',
  ],
  [
    'remove the variable NEURINO_MODELS, then start Neurino again',
    'entferne die Variable NEURINO_MODELS, dann starte Neurino neu',
  ],
  [
    'the library cannot move while its models are in use',
    'die Bibliothek kann nicht umziehen, solange ihre Modelle gebraucht werden',
  ],
  ['stop mining, then move it', 'halte das Mining an, dann verschieb sie'],
  ['The library is in {} now.', 'Die Bibliothek ist jetzt in {0}.'],
  [
    '{} of {} was damaged and set aside. Only its damaged pieces are fetched again.',
    '{0} von {1} war beschädigt und liegt jetzt beiseite. Nur die beschädigten Stücke werden neu geladen.',
  ],
  [
    '{} of {} was damaged and set aside. The model is your own: add it again.',
    '{0} von {1} war beschädigt und liegt jetzt beiseite. Das Modell ist dein eigenes: Füge es noch mal hinzu.',
  ],
  ['The drive could not read {} of {}.', 'Das Laufwerk konnte {0} von {1} nicht lesen'],
  ['every file of this model can be read', 'jede Datei dieses Modells lässt sich lesen'],
  [
    'the model is your own, so nothing could bring it back',
    'das Modell ist dein eigenes, nichts könnte es zurückbringen',
  ],
  [
    'copy its file from somewhere else and add it again',
    'hol seine Datei von woanders und füg es neu hinzu',
  ],
  ['the file could not be set aside', 'die Datei ließ sich nicht beiseitelegen'],
  ['the files could not be deleted', 'die Dateien ließen sich nicht löschen'],
  [
    'One file read, and it is as it should be.',
    'Eine Datei gelesen, und sie ist, wie sie sein soll.',
  ],
  ['{} files read, all as they should be.', '{0} Dateien gelesen, alle wie sie sein sollen.'],
  [
    'No file of a missing model was found there.',
    'Dort wurde keine Datei eines fehlenden Modells gefunden.',
  ],
  [
    'One file found, {}: it need not be fetched.',
    'Eine Datei gefunden, {0}: Sie muss nicht geladen werden.',
  ],
  [
    '{} files found, {}: they need not be fetched.',
    '{0} Dateien gefunden, {1}: Sie müssen nicht geladen werden.',
  ],
  ['the library is busy with something else', 'die Bibliothek ist mit etwas anderem beschäftigt'],
  ['wait for that to end, or stop it', 'warte, bis das fertig ist, oder brich es ab'],
  // Downloads.
  ['the download ended unexpectedly', 'der Download brach unerwartet ab'],
  ['it has: {}', 'vorhanden sind: {0}'],
  [
    'Its makers want you to sign in and accept their terms. Do that on their page with your browser, download the file there, and take it over with `neurino models import`.',
    'Die Macher wollen, dass du dich anmeldest und ihre Bedingungen annimmst. Mach das im Browser auf ihrer Seite, lade die Datei dort herunter und übernimm sie mit `neurino models import`',
  ],
  [
    'Accept its terms with your browser, download the file there, and take it over with `neurino models import`.',
    'Nimm die Bedingungen im Browser an, lade die Datei dort herunter und übernimm sie mit `neurino models import`',
  ],
  [
    'The file is gone from where the catalogue says. A newer catalogue may know another place.',
    'Die Datei ist nicht mehr dort, wo der Katalog sie nennt. Ein neuerer Katalog kennt vielleicht einen anderen Ort',
  ],
  [
    'What the server has is not what the catalogue vouches for, so it was not used. Try again later, or get the file from elsewhere.',
    'Was der Server hat, ist nicht das, wofür der Katalog bürgt; darum wurde es nicht benutzt. Versuch es später noch mal oder hol die Datei von woanders',
  ],
  [
    'Free some space, clean the library up, or move it to another drive. What has arrived is kept.',
    'Schaff Platz, räum die Bibliothek auf oder verschieb sie auf ein anderes Laufwerk. Was schon da ist, bleibt',
  ],
  [
    'Neurino tries again by itself and goes on where it stopped.',
    'Neurino versucht es von selbst wieder und macht dort weiter, wo es stehen blieb',
  ],
  [
    '`{}` is not in the catalogue; `neurino models list` shows what there is',
    '`{0}` steht nicht im Katalog; `neurino models list` zeigt, was es gibt',
  ],
  [
    'the model manifest `{}` cannot be read',
    'die Beschreibung `{0}` des Modells lässt sich nicht lesen',
  ],
  [
    'the model manifest `{}` is refused: {}',
    'die Beschreibung `{0}` des Modells wird abgelehnt: {1}',
  ],
  ['the catalogue is refused: {}', 'der Katalog wird abgelehnt: {0}'],
  [
    'there is already a model `{}`; choose another id with --id, or remove that one first',
    'ein Modell `{0}` gibt es schon; wähle mit --id einen anderen Namen oder entferne es erst',
  ],
  [
    "`{}` is not a file; name the model's file itself",
    '`{0}` ist keine Datei; nenn die Datei des Modells selbst',
  ],
  [
    'the library cannot move to `{}`: {}; choose another folder',
    'die Bibliothek kann nicht nach `{0}` umziehen: {1}; wähle einen anderen Ordner',
  ],
  ['it is not a whole path', 'das ist kein ganzer Pfad'],
  [
    'it holds other things, and so does `neurino-models` in there',
    'er enthält anderes, und `neurino-models` darin auch',
  ],
  ['another program keeps writing it', 'ein anderes Programm schreibt sie immer wieder'],
  [
    'the library is there, or one folder would lie in the other',
    'die Bibliothek ist schon dort, oder ein Ordner läge im anderen',
  ],
  [
    '`{}` is not on this machine; get it with `neurino models get {}`',
    '`{0}` ist nicht auf diesem Rechner; hol es mit `neurino models get {1}`',
  ],
  [
    '`{}` is damaged: its SHA-256 should be {} and is {}; it was set aside, get the model again',
    '`{0}` ist beschädigt: SHA-256 sollte {1} sein und ist {2}; die Datei liegt jetzt beiseite, hol das Modell noch mal',
  ],
  [
    '`{}` is damaged: it should have {} bytes and has {}; it was set aside, get the model again',
    '`{0}` ist beschädigt: {1} Byte sollten es sein und {2} sind es; die Datei liegt jetzt beiseite, hol das Modell noch mal',
  ],
  [
    'not enough space for the model: {} are needed in `{}` and {} are free; free some, or set NEURINO_MODELS to a folder on another drive',
    'zu wenig Platz für das Modell: {0} werden in `{1}` gebraucht, {2} sind frei; schaff Platz oder setz NEURINO_MODELS auf einen Ordner auf einem anderen Laufwerk',
  ],
  [
    '`{}` is being fetched already; wait for that to end',
    '`{0}` wird schon geholt; warte, bis das fertig ist',
  ],
  [
    '`{}` could not be obtained: {}; check the connection and try again, or take the file from elsewhere with `neurino models import {} FILE`',
    '`{0}` war nicht zu bekommen: {1}; prüf die Verbindung und versuch es noch mal, oder übernimm die Datei mit `neurino models import {2} FILE` von woanders',
  ],
  ['cancelled', 'abgebrochen'],
  [
    '`{}` is not a file of {}: its SHA-256 is {}; import the exact file that the catalogue names, or get the model',
    '`{0}` ist keine Datei von {1}: SHA-256 ist {2}; übernimm genau die Datei, die der Katalog nennt, oder hol das Modell',
  ],
  ['any model of the catalogue', 'irgendeinem Modell des Katalogs'],
  ['cannot {} `{}`', 'ein Zugriff auf `{1}` ging schief ({0})'],
  ['cannot {} {}', 'ein Zugriff auf {1} ging schief ({0})'],
  ['this installation carries no copy', 'dieser Installation liegt keine Kopie bei'],
  ['cannot connect to {}', 'keine Verbindung zu {0}'],
  ['{} answered {} {}', '{0} antwortete mit {1} {2}'],
  ['{} answered {}', '{0} antwortete mit {1}'],
  ['{} answered {}{}', '{0} antwortete mit {1}{2}'],
  ['the connection to {} broke after {} of {}', 'die Verbindung zu {0} brach nach {1} von {2} ab'],
  [
    '{} redirects to an address that is not allowed',
    '{0} leitet an eine Adresse weiter, die nicht erlaubt ist',
  ],
  ['the redirect is not allowed', 'die Weiterleitung ist nicht erlaubt'],
  ['the file has {} bytes and should have {}', 'die Datei hat {0} Byte und sollte {1} haben'],
  [
    'the SHA-256 of what it gave is {} and should be {}',
    'das Geladene hat SHA-256 {0} und sollte {1} haben',
  ],
  [
    "Python's pip is not installed; installing Python 3 with pip would help",
    'pip von Python ist nicht installiert; Python 3 mit pip zu installieren würde helfen',
  ],
  ['pip failed: {}', 'pip ist gescheitert: {0}'],
  ['pip did not finish within {} minutes', 'pip wurde in {0} Minuten nicht fertig'],
  ['the package does not hold `{}`', 'das Paket enthält `{0}` nicht'],
  ['it gave no reason', 'ohne Angabe eines Grundes'],
  [
    'this way needs {} free and there are {}',
    'auf diesem Weg müssen {0} frei sein, und es sind {1}',
  ],
  ['the drive of `{}` is full', 'das Laufwerk von `{0}` ist voll'],
  [
    'the catalogue names no source that may be used',
    'der Katalog nennt keine Quelle, die benutzt werden darf',
  ],
  ['(it wants a sign-in for this file)', '(für diese Datei ist eine Anmeldung nötig)'],
  ['(the file is not there any more)', '(die Datei ist nicht mehr da)'],
  ['(it does not give the part that is missing)', '(den fehlenden Teil gibt er nicht heraus)'],
  ['(too many requests)', '(zu viele Anfragen)'],
  ['(it has a problem of its own)', '(er hat selbst ein Problem)'],
  ['the copy installed with Neurino', 'die mit Neurino installierte Kopie'],
  ['the catalogue itself', 'der Katalog selbst'],
  ['another model on this machine', 'ein anderes Modell auf diesem Rechner'],
  ["the model's web server", 'der Webserver des Modells'],
  ['the Python package', 'das Python-Paket'],
  [
    '`{}` is not a source: bundled, http or python-package',
    '`{0}` ist keine Quelle: bundled, http oder python-package',
  ],
  ['An image model of the network; more at {}', 'Ein Bildmodell des Netzwerks; mehr unter {0}'],
  ['An image model of the network.', 'Ein Bildmodell des Netzwerks.'],
  ['Your own model, from {}.', 'Dein eigenes Modell, aus {0}.'],
  ['unknown: the files do not say', 'unbekannt: die Dateien sagen es nicht'],
  ['unknown: the list does not say', 'unbekannt: die Liste sagt es nicht'],
  // Engine.
  ['this machine has no place {}', 'dieser Rechner hat keinen Platz {0}'],
  ['model `{}` is not loaded', 'das Modell `{0}` ist nicht geladen'],
  ['this build computes on the CPU only', 'diese Ausgabe rechnet nur auf dem Prozessor'],
  [
    'no NVIDIA card with a working driver was found',
    'keine NVIDIA-Karte mit funktionierendem Treiber gefunden',
  ],
  ['{} were found', '{0} gefunden'],
  ['there is no NVIDIA card {}: {}', 'eine NVIDIA-Karte {0} gibt es nicht: {1}'],
  [
    'model `{}` makes pictures, it writes no text',
    'das Modell `{0}` malt Bilder, es schreibt keinen Text',
  ],
  [
    'model `{}` writes text, it makes no pictures',
    'das Modell `{0}` schreibt Text, es malt keine Bilder',
  ],
  ['reading the prompt', 'beim Lesen der Frage'],
  ['a step of the picture', 'bei einem Schritt des Bildes'],
  ['changing the model', 'beim Wechsel des Modells'],
  ['decoding the picture', 'beim Ausarbeiten des Bildes'],
  ['reading the job', 'beim Lesen des Jobs'],
  ['making a smaller cache', 'beim Verkleinern des Zwischenspeichers'],
  ['loading the model', 'beim Laden des Modells'],
  ['loading the model another way', 'beim Laden des Modells auf andere Weise'],
  ['the model is not there', 'das Modell ist nicht geladen'],
  [
    'the device ran out of memory for a picture of {} x {}; ask for a smaller one, or close other programs',
    'für ein Bild von {0} x {1} reichte der Speicher nicht; nimm ein kleineres oder schließ andere Programme',
  ],
  [
    'a picture of {} x {} needs {} GB of memory beside the model and {} GB are free for it; ask for a smaller one, or close other programs',
    'ein Bild von {0} x {1} braucht neben dem Modell {2} GB Speicher, und {3} GB sind dafür frei; nimm ein kleineres oder schließ andere Programme',
  ],
  [
    'the model needs {} GB of memory and {} GB are free for it; close other programs, or choose a smaller model',
    'das Modell braucht {0} GB Speicher, und {1} GB sind dafür frei; schließ andere Programme oder wähle ein kleineres Modell',
  ],
  ['its files alone are no model: {}', 'seine Dateien allein sind kein Modell: {0}'],
  [
    'the device ran out of memory while {} was under way',
    'der Speicher des Geräts reichte nicht ({0})',
  ],
  ['a fault ended {}: {}', 'ein Fehler {0}: {1}'],
  ['no words', 'ohne weitere Angaben'],
  [
    "the engine's process could not be started: {}",
    'die Recheneinheit ließ sich nicht starten: {0}',
  ],
  ["the engine's program is gone: {}", 'das Programm der Recheneinheit ist weg: {0}'],
  [
    "the system lets nobody start the engine's program: {}",
    'das System lässt niemanden das Programm der Recheneinheit starten: {0}',
  ],
  [
    'an antivirus program may have taken it away: restore it from the quarantine and except the folder of Neurino, or install Neurino again; keys, points and models stay where they are',
    'vielleicht hat es ein Antivirenprogramm entfernt: Hol es aus der Quarantäne zurück und nimm den Ordner von Neurino aus, oder installiere Neurino neu; Schlüssel, Punkte und Modelle bleiben, wo sie sind',
  ],
  ["the engine's process has no pipes", 'die Recheneinheit ist nicht zu erreichen'],
  [
    "the engine's process speaks version {}, this program {}",
    'die Recheneinheit spricht Version {0}, dieses Programm {1}',
  ],
  [
    "the engine's process did not say hello first",
    'die Recheneinheit hat sich nicht richtig gemeldet',
  ],
  [
    "the engine's process did not say hello within {} s",
    'die Recheneinheit hat sich {0} s lang nicht gemeldet',
  ],
  [
    "the engine's process ended unexpectedly ({})",
    'die Recheneinheit ist unerwartet ausgefallen ({0})',
  ],
  ['the engine ended unexpectedly', 'die Recheneinheit ist unerwartet ausgefallen'],
  [
    "the engine's process sent something that cannot be read: {}",
    'die Recheneinheit schickte etwas Unlesbares: {0}',
  ],
  ["the engine's process closed its pipe", 'die Recheneinheit hat die Verbindung beendet'],
  [
    "the engine's thread could not be started: {}",
    'die Recheneinheit ließ sich nicht starten: {0}',
  ],
  ["the engine's thread has ended", 'die Recheneinheit hat aufgehört'],
  ['the engine ended before the job', 'die Recheneinheit hörte vor dem Job auf'],
  ['the engine was shut down', 'die Recheneinheit wurde beendet'],
  ['the job was cancelled', 'der Job wurde abgebrochen'],
  [
    'the engine has {} jobs already; try later',
    'die Recheneinheit hat schon {0} Jobs; versuch es später',
  ],
  ["the engine's process is lost: {}", 'die Recheneinheit ist verloren: {0}'],
  ['the conversation is too long: {} bytes', 'das Gespräch ist zu lang: {0} Byte'],
  [
    "the engine's process answered what nobody asked",
    'die Recheneinheit antwortete auf etwas, das niemand fragte',
  ],
  ["the engine's process said hello twice", 'die Recheneinheit meldete sich zweimal'],
  ["the engine's process stopped answering", 'die Recheneinheit antwortet nicht mehr'],
  ["the engine's process stopped making progress", 'die Recheneinheit kommt nicht mehr voran'],
  [
    '{}; the model is loaded again, and the job can be tried again',
    '{0}; das Modell wird neu geladen, und der Job kann wiederholt werden',
  ],
  ['loading was ended by an unload', 'das Laden wurde abgebrochen'],
];
