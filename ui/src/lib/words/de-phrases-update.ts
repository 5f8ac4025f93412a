// The phrase book of newer versions and notifications; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  // Looking for a newer version.
  [
    'the list of versions cannot be trusted: {}',
    'der Liste der Versionen ist nicht zu trauen: {0}',
  ],
  ["its signature is not the network's", 'die Unterschrift ist nicht die richtige'],
  ['its signature is not hexadecimal', 'die Unterschrift ist unlesbar'],
  [
    'the list of versions is out of date; a new one has to come from where it lies',
    'die Liste der Versionen ist abgelaufen; von dort, wo sie liegt, muss eine neue kommen',
  ],
  [
    'the list offers version {}, and version {} was offered before',
    'die Liste bietet Version {0} an, und Version {1} wurde schon einmal angeboten',
  ],
  [
    'version {} does not follow {}: it wants at least {}; install it by hand',
    'Version {0} schließt nicht an {1} an: Sie braucht mindestens {2}; installiere sie von Hand',
  ],
  ['version {} has no package for {}', 'Version {0} hat kein Paket für {1}'],
  [
    '`{}` is not the address of a list of versions: https://.., or the whole path of a folder',
    '`{0}` ist keine Adresse einer Liste von Versionen: https://.. oder der ganze Pfad eines Ordners',
  ],
  [
    'the list of versions cannot be read: {}',
    'die Liste der Versionen lässt sich nicht lesen: {0}',
  ],
  ['the server answers {}', 'der Server antwortet mit {0}'],
  [
    'the package of the new version cannot be fetched',
    'das Paket der neuen Version lässt sich nicht laden',
  ],
  ['the package of version {} is damaged: {}', 'das Paket der Version {0} ist beschädigt: {1}'],
  [
    'version {} does not start on this machine: {}',
    'Version {0} startet auf diesem Rechner nicht: {1}',
  ],
  [
    'the files of this program are not yours to replace',
    'die Dateien dieses Programms darfst du nicht ersetzen',
  ],
  [
    'version {} is still on trial; start Neurino, wait half a minute and try again',
    'Version {0} ist noch auf Probe; starte Neurino, warte eine halbe Minute und versuch es noch einmal',
  ],
  [
    'another Neurino exchanges its files just now; try again in a minute',
    'ein anderes Neurino tauscht gerade seine Dateien aus; versuch es in einer Minute noch einmal',
  ],
  [
    '{} is not what was kept of the earlier version; install that one by hand',
    '{0} ist nicht das, was von der früheren Version aufgehoben war; installiere sie von Hand',
  ],
  ['no earlier version is kept here', 'hier ist keine frühere Version aufgehoben'],
  ['No earlier version is kept here.', 'Hier ist keine frühere Version aufgehoben'],
  [
    '{} {} failed; check the free space and that this user may write there',
    '{1} lässt sich nicht bearbeiten ({0}); prüf den freien Platz und ob du dort schreiben darfst',
  ],
  ['it is too large', 'sie ist zu groß'],
  ['it cannot be unpacked', 'es lässt sich nicht auspacken'],
  [
    'There is no newer version to install.',
    'Es gibt keine neuere Version, die sich installieren ließe',
  ],
  ['This version does not update itself.', 'Diese Version aktualisiert sich nicht selbst'],
  [
    'the key of updates is not 64 hexadecimal digits',
    'der Schlüssel der Updates besteht nicht aus 64 hexadezimalen Ziffern',
  ],
  [
    'correct `[update]` in settings.toml, or leave it out',
    'berichtige `[update]` in settings.toml oder lass es weg',
  ],
  // Notifications.
  [
    'Nothing on this desktop shows notifications.',
    'Auf diesem Desktop zeigt nichts Mitteilungen an',
  ],
  ['The desktop shows no notification: {}', 'Der Desktop zeigt keine Mitteilung: {0}'],
  ['This program runs without a desktop.', 'Dieses Programm läuft ohne Desktop'],
  ['the notification could not be shown', 'die Mitteilung ließ sich nicht anzeigen'],
];
