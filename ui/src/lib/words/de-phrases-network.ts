// Sentences of jobs, the network and the Playground without a code of their own; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  // The Playground.
  ['try again later', 'versuch es später noch einmal'],
  ['You stopped this answer.', 'Du hast diese Antwort abgebrochen'],
  ['You stopped this picture.', 'Du hast dieses Bild abgebrochen'],
  ['the network answered {}', 'das Netzwerk antwortete mit {0}'],
  ['The answer has an endless line.', 'Die Antwort hat eine endlose Zeile'],
  ['The network went silent for too long.', 'Das Netzwerk blieb zu lange still'],
  ['The network cannot be reached.', 'Das Netzwerk ist nicht erreichbar'],
  ['Check the connection, then try again.', 'Prüf die Verbindung, dann versuch es noch mal'],
  [
    'The connection broke before the answer was complete.',
    'Die Verbindung brach ab, bevor die Antwort fertig war',
  ],
  ['Try again.', 'Versuch es noch mal'],
  [
    'whoever welcomes is not who asked for the signature',
    'Wer dich begrüßt, ist nicht, wer um die Unterschrift bat',
  ],
  ['This picture is still being made.', 'Dieses Bild entsteht noch'],
  ['Too many pictures are being made at once.', 'Es entstehen zu viele Bilder auf einmal'],
  ['This is no picture.', 'Das ist kein Bild'],
  ['the picture could not be written', 'das Bild konnte nicht geschrieben werden'],
  ['A word needs a letter or a digit.', 'Ein Wort braucht einen Buchstaben oder eine Ziffer'],
  [
    'A word or phrase has at most {} characters.',
    'Ein Wort oder eine Wortfolge hat höchstens {0} Zeichen',
  ],
  [
    'The filter takes at most {} words and phrases.',
    'Der Filter nimmt höchstens {0} Wörter und Wortfolgen',
  ],
  ['the filter could not be written', 'der Filter konnte nicht geschrieben werden'],
  [
    'this machine would take about {} s for the job, and has {} s',
    'dieser Rechner bräuchte für den Job etwa {0} s und hat {1} s',
  ],
  ['This conversation is still being answered.', 'Auf dieses Gespräch wird noch geantwortet'],
  [
    'Too many conversations are being answered at once.',
    'Es werden zu viele Gespräche auf einmal beantwortet',
  ],
  [
    "Ask the network's operator for a key and use any OpenAI-compatible program.",
    'Bitte den Betreiber des Netzwerks um einen Schlüssel und nimm ein Programm, das die OpenAI-API spricht',
  ],
  [
    'This network needs an API key to ask it something.',
    'Wer dieses Netzwerk etwas fragen will, braucht einen API-Schlüssel',
  ],
  // Jobs on this machine.
  ['the miner was given no model; fetch one first', 'der Miner hat kein Modell; hol erst eins'],
  [
    'the operator of this machine does not take such content',
    'auf diesem Rechner sind solche Inhalte ausgeschlossen',
  ],
  ['the engine ended without a result', 'die Recheneinheit hörte ohne Ergebnis auf'],
  ['the result is too large to be sent', 'das Ergebnis ist zu groß zum Senden'],
  [
    'a finished result cannot be saved: {}',
    'ein fertiges Ergebnis lässt sich nicht speichern: {0}',
  ],
  [
    'check that the disk is not full; a crash now would lose the result',
    'prüf, ob das Laufwerk voll ist; bei einem Absturz ginge das Ergebnis jetzt verloren',
  ],
  ['the job took longer than its {} ms', 'der Job brauchte länger als seine {0} ms'],
  ['fetch the model again', 'hol das Modell noch mal'],
  [
    'close other programs that use the memory, or choose a smaller model',
    'schließ andere Programme, die den Speicher belegen, oder wähle ein kleineres Modell',
  ],
  ['choose another device, or `auto`', 'wähle ein anderes Gerät oder `auto`'],
  ['the connection to the network was lost', 'die Verbindung zum Netzwerk ging verloren'],
  ['the coordinator says too much at once', 'der Koordinator sagt zu viel auf einmal'],
  ['the coordinator takes no messages', 'der Koordinator nimmt keine Nachrichten an'],
  ["the job's time was over before it came", 'die Zeit des Auftrags war um, ehe er ankam'],
  ['this node lacks the model', 'dieser Rechner hat das Modell nicht'],
  ['the node takes no jobs now', 'dieser Rechner nimmt gerade keine Jobs an'],
  ['the node has no such unit', 'dieser Rechner hat keinen solchen Teil'],
  ['the node has no free slot', 'dieser Rechner hat keinen Platz frei'],
  [
    'the coordinator sent a receipt that is not valid: {}',
    'das Netzwerk schickte einen ungültigen Beleg: {0}',
  ],
  ['a receipt cannot be recorded: {}', 'ein Beleg lässt sich nicht aufzeichnen: {0}'],
  ['check that the disk is not full', 'prüf, ob das Laufwerk voll ist'],
  ['the miner was stopped', 'das Mining wurde angehalten'],
  ['the engine has no room for it', 'die Recheneinheit hat keinen Platz dafür'],
  ['the payer withdrew it', 'der Auftraggeber hat ihn zurückgezogen'],
  ['its time was over', 'seine Zeit war um'],
  ['another machine has it now', 'ein anderer Rechner hat ihn jetzt'],
  ['the network withdrew it', 'das Netzwerk hat ihn zurückgezogen'],
  ['the engine was started again', 'die Recheneinheit wurde neu gestartet'],
  ['it is of another coordinator', 'er ist von einem anderen Koordinator'],
  ['it is for another job or node', 'er gilt für einen anderen Job oder Rechner'],
  ['it is for another result', 'er gilt für ein anderes Ergebnis'],
  ['its amount does not follow from its rules', 'sein Betrag folgt nicht aus seinen Regeln'],
  ['its signature is wrong', 'seine Unterschrift ist falsch'],
  ['no JSON of ours: {}', 'kein lesbarer Eintrag: {0}'],
  ['version {} is not {}', 'Version {0} ist nicht {1}'],
  ['its name is not its lease', 'der Name passt nicht zum Auftrag'],
  ['its result does not match its digest', 'das Ergebnis passt nicht zu seinem Fingerabdruck'],
  // The link to the network.
  [
    'the link was closed before the session was open',
    'die Verbindung wurde beendet, bevor sie stand',
  ],
  ['no answer within {} ms', 'keine Antwort in {0} ms'],
  ['it did not begin with a challenge', 'der Anfang war nicht der erwartete'],
  [
    'it speaks version {}, this program version {}; update the older one',
    'dort wird Version {0} gesprochen, hier Version {1}; aktualisiere die ältere',
  ],
  ["its key's address is not an address", 'die Adresse seines Schlüssels ist keine'],
  ["its network's name is not a name", 'der Name seines Netzwerks ist keiner'],
  ['what it wants signed is not a nonce', 'was es unterschrieben haben will, ist keine Nonce'],
  ['it did not answer the hello', 'auf die Begrüßung kam keine Antwort'],
  ['it is not a URL such as https://pool.example', 'sie ist keine URL wie https://pool.example'],
  [
    'it must not hold a user name or password',
    'sie darf weder Benutzernamen noch Passwort enthalten',
  ],
  [
    'it must end with its path, without `?` or `#`',
    'sie muss mit ihrem Pfad enden, ohne `?` oder `#`',
  ],
  [
    'plain http is only for this machine itself; use https',
    'http geht nur auf diesem Rechner selbst; nimm https',
  ],
  ['leave out /v1: that is for clients', 'lass /v1 weg: Das ist für Programme'],
  ['it must start with https://', 'sie muss mit https:// beginnen'],
  [
    "the coordinator's address `{}` cannot be used: {}",
    'die Adresse `{0}` des Koordinators lässt sich nicht nutzen: {1}',
  ],
  ['the coordinator at {} cannot be reached', 'der Koordinator unter {0} ist nicht erreichbar'],
  [
    'the reward wallet cannot be used: an address is `0x` and 40 hex digits',
    'die Wallet für die Punkte lässt sich nicht nutzen: Eine Adresse ist `0x` und 40 Hexziffern',
  ],
  ['the certificate of {} is not trusted', 'dem Zertifikat von {0} wird nicht vertraut'],
  [
    "check this machine's date; if that is right, the certificate has to be renewed",
    'prüf das Datum dieses Rechners; stimmt es, muss das Zertifikat erneuert werden',
  ],
  [
    'check the address: the certificate is for another name',
    'prüf die Adresse: Das Zertifikat gilt für einen anderen Namen',
  ],
  [
    "add the certificate of its authority to the system's store, or name its file in SSL_CERT_FILE",
    'nimm das Zertifikat seiner Stelle in den Speicher des Systems auf oder nenn seine Datei in SSL_CERT_FILE',
  ],
  ['the coordinator refused the session: {}', 'der Koordinator lehnt ab: {0}'],
  [
    'the other side does not speak the node protocol: {}',
    'die Gegenseite spricht das Protokoll nicht: {0}',
  ],
  ['its answer is too large', 'die Antwort ist zu groß'],
  ['its answer is not the one expected', 'die Antwort ist nicht die erwartete'],
  ['the server answered {}', 'der Server antwortete mit {0}'],
  ['the network says: {}', 'das Netzwerk meldet: {0}'],
  // What the network answers.
  [
    'nobody on the network serves this model right now',
    'gerade bietet im Netzwerk niemand dieses Modell an',
  ],
  ['no machine makes pictures now', 'gerade malt kein Rechner Bilder'],
  ['the result of the job is no picture', 'das Ergebnis des Jobs ist kein Bild'],
  ['there is no such job', 'diesen Job gibt es nicht'],
  ['the node stopped in the middle of the answer', 'der Rechner brach mitten in der Antwort ab'],
  [
    'nothing was charged; send the request again',
    'berechnet wurde nichts; schick die Anfrage noch mal',
  ],
  [
    "the job's request and answer were shredded after their keeping time",
    'Anfrage und Antwort dieses Jobs sind nach ihrer Aufbewahrungszeit vernichtet worden',
  ],
  [
    'its receipt is kept; send the request again for another answer',
    'sein Beleg bleibt; schick die Anfrage noch einmal, wenn du eine neue Antwort willst',
  ],
  ['the request was withdrawn', 'die Anfrage wurde zurückgezogen'],
  [
    '`messages` and `tools` hold {} bytes; at most {} fit',
    'das Gespräch hat {0} Byte; höchstens {1} passen',
  ],
  ['shorten or split the conversation', 'kürz oder teil das Gespräch'],
  ['`stop` takes at most {} strings', '`stop` nimmt höchstens {0} Texte'],
  ['makes pictures', 'malt Bilder'],
  ['writes text', 'schreibt Text'],
  [
    'the model `{}` {}; it cannot serve this request',
    'das Modell `{0}` {1}; es passt nicht zu dieser Anfrage',
  ],
  ['send it to {}, or choose another model', 'schick sie an {0} oder wähle ein anderes Modell'],
  [
    'the network knows {}; no node is connected right now',
    'das Netzwerk kennt {0}; gerade ist kein Rechner verbunden',
  ],
  ['served right now: {}', 'gerade angeboten: {0}'],
  ['the network does not know the model `{}`', 'das Netzwerk kennt das Modell `{0}` nicht'],
  [
    '{} of your requests are open already; the room that is left is for others',
    '{0} deiner Anfragen sind schon offen; der übrige Platz ist für andere',
  ],
  [
    'wait until some of them have ended, then send more',
    'warte, bis einige davon fertig sind, dann schick weitere',
  ],
  [
    'nodes handed it back {} times without beginning it',
    'Rechner gaben es {0}-mal zurück, ohne damit anzufangen',
  ],
  [
    '{} requests wait already; the network takes no more',
    '{0} Anfragen warten schon; mehr nimmt das Netzwerk nicht an',
  ],
  ['try again in a few seconds', 'versuch es in ein paar Sekunden noch mal'],
  [
    'the prepaid credits do not cover this request: {} left',
    'das Guthaben reicht für diese Anfrage nicht: {0} übrig',
  ],
  [
    'lower `max_tokens` or the size, or buy credits',
    'senk `max_tokens` oder die Größe, oder lade Guthaben auf',
  ],
  [
    "the API key's budget of the month does not cover this: {} left",
    'das Monatsbudget des API-Schlüssels reicht nicht: {0} übrig',
  ],
  [
    'lower `max_tokens` or the size, or use another key',
    'senk `max_tokens` oder die Größe, oder nimm einen anderen Schlüssel',
  ],
  [
    'the idempotency key was used for another job',
    'der Wiederholungsschlüssel gehört zu einem anderen Job',
  ],
  ['choose a new key for each new job', 'nimm für jeden neuen Job einen neuen Schlüssel'],
  [
    'its node vanished {} times while working on it',
    'sein Rechner verschwand {0}-mal bei der Arbeit',
  ],
  [
    'the conversation is longer than the model can read ({} of {} tokens)',
    'das Gespräch ist länger, als das Modell lesen kann ({0} von {1} Token)',
  ],
  [
    'Start a new chat or choose a shorter answer under Advanced.',
    'Beginn einen neuen Chat oder wähle unter „Erweitert“ eine kürzere Antwort',
  ],
  ['something broke inside the coordinator', 'im Koordinator ist etwas schiefgegangen'],
  ['its log has the cause', 'sein Protokoll nennt die Ursache'],
  [
    'its log has the cause; a full disk is the usual one',
    'sein Protokoll nennt die Ursache; meist ist das Laufwerk voll',
  ],
  [
    'the coordinator cannot read or write its books',
    'der Koordinator kann seine Bücher nicht lesen oder schreiben',
  ],
  ['no rules of this network are in force', 'keine Regeln dieses Netzwerks gelten derzeit'],
  ['the coordinator is shutting down', 'der Koordinator wird gerade beendet'],
  [
    'the coordinator has just started, and not all nodes are back',
    'der Koordinator ist gerade erst gestartet, und noch nicht alle Rechner sind zurück',
  ],
  [
    'the database {} is in use by another Neurino; close that one or choose another home',
    'die Datenbank {0} gehört gerade einem anderen Neurino; beende es oder wähle einen anderen Ordner',
  ],
  [
    'the folder of the database {} cannot be used; check that it is writable',
    'der Ordner der Datenbank {0} lässt sich nicht nutzen; prüf, ob du dort schreiben darfst',
  ],
  ['the database cannot be used', 'die Datenbank lässt sich nicht nutzen'],
  [
    'SQLite refused; check that the disk is not full',
    'SQLite lehnt ab; prüf, ob das Laufwerk voll ist',
  ],
  [
    'the database was written by a newer version, or is damaged',
    'die Datenbank stammt von einer neueren Version oder ist beschädigt',
  ],
];
