// Sentences of keys, addresses and chains without a code of their own; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  [
    'no key of a former identity {} is kept on this machine',
    'auf diesem Rechner liegt kein Schlüssel einer früheren Identität {0}',
  ],
  [
    'another identity earns for other points and bindings',
    'eine andere Identität verdient für andere Punkte und Bindungen',
  ],
  ['confirm that you want to go back to it', 'bestätige, dass du zu ihr zurückkehren willst'],
  // The wallet's page.
  ['no words were asked for', 'es wurden keine Wörter verlangt'],
  ['start the check again', 'beginn die Prüfung von vorn'],
  ['at least one of these words is another one', 'mindestens eines dieser Wörter ist ein anderes'],
  [
    'look at what you wrote down and try again with new places',
    'sieh auf deinen Zettel und versuch es mit neuen Stellen noch mal',
  ],
  [
    'what is to be saved is not what was pasted',
    'was gespeichert werden soll, ist nicht das, was eingefügt wurde',
  ],
  [
    'a program on this machine may have changed it; compare the address with its source, character by character',
    'vielleicht hat ein Programm auf diesem Rechner es geändert; vergleich die Adresse Zeichen für Zeichen mit ihrer Quelle',
  ],
  ['the reward address was changed meanwhile', 'die Auszahlungsadresse wurde inzwischen geändert'],
  ['look at the one in use, then try again', 'sieh dir die jetzige an, dann versuch es noch mal'],
  [
    'a key file holds the words unencrypted',
    'in einer Schlüsseldatei stehen die Wörter unverschlüsselt',
  ],
  ['confirm that you want it all the same', 'bestätige, dass du das trotzdem willst'],
  [
    'a key file is named by the reward address, and none is set',
    'eine Schlüsseldatei wird nach der Auszahlungsadresse benannt, und es gibt noch keine',
  ],
  ['set the reward address first', 'leg erst die Auszahlungsadresse fest'],
  [
    'finished jobs of the present identity wait to be sent',
    'fertige Jobs der jetzigen Identität warten noch aufs Senden',
  ],
  [
    'start mining once so that they are paid, then stop and try again',
    'starte einmal das Mining, damit sie bezahlt werden, dann halte an und versuch es noch mal',
  ],
  ['{} is there already and is not overwritten', '{0} gibt es schon und wird nicht überschrieben'],
  ['move it away, or choose another folder', 'räum es weg oder wähle einen anderen Ordner'],
  [
    'the identity cannot change while mining',
    'die Identität kann nicht wechseln, solange das Mining läuft',
  ],
  ['press Stop first', 'drück erst auf Stopp'],
  [
    'the file with your reward address was damaged and lies in {} now',
    'die Datei mit deiner Auszahlungsadresse war beschädigt und liegt jetzt in {0}',
  ],
  ['enter the reward address again', 'gib die Auszahlungsadresse noch mal ein'],
  ['no path was entered', 'es wurde kein Pfad eingegeben'],
  [
    'the path must be a whole one, from the root or from `~`',
    'der Pfad muss vollständig sein, von der Wurzel oder von `~` an',
  ],
  ['the files could not be looked at', 'die Dateien konnten nicht angesehen werden'],
  // Addresses.
  ['no address was entered', 'es wurde keine Adresse eingegeben'],
  [
    'names such as `name.eth` are not looked up, because a name can point elsewhere tomorrow; paste the address itself, `0x` and 40 characters',
    'Namen wie `name.eth` werden nicht nachgeschlagen, weil sie morgen woandershin zeigen können; füg die Adresse selbst ein, `0x` und 40 Zeichen',
  ],
  [
    'these look like recovery words; never paste them into a field for an address. Only the address is needed here, `0x` and 40 characters',
    'das sieht nach Wiederherstellungswörtern aus; füg sie nie in ein Feld für Adressen ein. Hier reicht die Adresse, `0x` und 40 Zeichen',
  ],
  [
    'this has the length of a private key; never paste one into a field for an address. Only the address is needed here, `0x` and 40 characters',
    'das ist so lang wie ein privater Schlüssel; füg so einen nie in ein Feld für Adressen ein. Hier reicht die Adresse, `0x` und 40 Zeichen',
  ],
  [
    'an address of this kind begins with `0x`; addresses of other networks do not fit',
    'eine solche Adresse beginnt mit `0x`; Adressen anderer Netzwerke passen nicht',
  ],
  [
    'an address has 40 characters after `0x`, and this has {}; copy it again whole',
    'eine Adresse hat nach `0x` 40 Zeichen, und diese hat {0}; kopier sie noch mal ganz',
  ],
  [
    'after `0x` an address has only the digits 0 to 9 and the letters a to f',
    'nach `0x` hat eine Adresse nur die Ziffern 0 bis 9 und die Buchstaben a bis f',
  ],
  [
    'the capital letters of this address do not fit its digits, so at least one character is wrong; copy it again from your wallet',
    'die Großbuchstaben dieser Adresse passen nicht zu ihren Ziffern, also ist mindestens ein Zeichen falsch; kopier sie noch mal aus deiner Wallet',
  ],
  [
    'this is the address of nobody: points sent there are lost',
    'diese Adresse gehört niemandem: Punkte, die dorthin gehen, sind verloren',
  ],
  [
    'what follows the `-` of a miner id is 1 to 64 letters, digits, `_` or `-`',
    'nach dem `-` einer Miner-ID kommen 1 bis 64 Buchstaben, Ziffern, `_` oder `-`',
  ],
  ['an address is `0x` and 40 hex digits', 'eine Adresse ist `0x` und 40 Hex-Ziffern'],
  // Keys.
  [
    'the recovery phrase cannot be used: {}',
    'die Wiederherstellungswörter lassen sich nicht nutzen: {0}',
  ],
  ['the signature is not valid: {}', 'die Unterschrift ist ungültig: {0}'],
  [
    'the key store of the operating system cannot be used: {}',
    'der Schlüsselspeicher des Systems lässt sich nicht nutzen: {0}',
  ],
  [
    'the key store of the operating system did not answer within {} ms; unlock it and try again',
    'der Schlüsselspeicher des Systems antwortete {0} ms lang nicht; entsperr ihn und versuch es noch mal',
  ],
  [
    'the key file {} cannot be used: {}; restore it from a backup, or move it away to start with a new identity',
    'die Schlüsseldatei {0} lässt sich nicht nutzen: {1}; hol sie aus einer Sicherung zurück oder räum sie weg, um mit einer neuen Identität anzufangen',
  ],
  [
    'the key file {} cannot be opened: the pass phrase is wrong or missing, or the file is damaged; set NEURINO_PASSPHRASE_FILE to the file it was made with',
    'die Schlüsseldatei {0} lässt sich nicht öffnen: Die Passphrase ist falsch oder fehlt, oder die Datei ist beschädigt; setz NEURINO_PASSPHRASE_FILE auf die Datei, mit der sie gemacht wurde',
  ],
  [
    'the pass phrase file {} cannot be used: {}',
    'die Datei {0} mit der Passphrase lässt sich nicht nutzen: {1}',
  ],
  [
    'the entry in {} is not a key of this program; remove it there to start anew',
    'der Eintrag {0} ist kein Schlüssel dieses Programms; entferne ihn dort, um neu anzufangen',
  ],
  [
    'the identity key is no longer in {}; restore it there, or remove {} to start with a new identity',
    'der Schlüssel der Identität liegt nicht mehr {0}; leg ihn dorthin zurück oder entferne {1}, um mit einer neuen Identität anzufangen',
  ],
  [
    'the key file {} is gone; put it back from a backup, or remove {} to start with a new identity',
    'die Schlüsseldatei {0} ist weg; leg sie aus einer Sicherung zurück oder entferne {1}, um mit einer neuen Identität anzufangen',
  ],
  [
    '{} is damaged; it holds no secret, so remove it and start again: the key is found where it is',
    '{0} ist beschädigt; darin ist kein Geheimnis, also entferne die Datei und starte neu: Der Schlüssel wird gefunden, wo er ist',
  ],
  [
    'another process is using the keys ({} is locked); try again',
    'ein anderes Programm benutzt gerade die Schlüssel ({0} ist gesperrt); versuch es noch mal',
  ],
  ['the key file {} cannot be used: {}', 'die Schlüsseldatei {0} lässt sich nicht nutzen: {1}'],
  [
    '{} did not keep the new key; the old one is still in use',
    'der neue Schlüssel blieb nicht erhalten ({0}); der alte ist weiter in Gebrauch',
  ],
  [
    "a key's name is 1 to 64 lower-case letters, digits, `-` or `_`",
    'der Name eines Schlüssels hat 1 bis 64 Kleinbuchstaben, Ziffern, `-` oder `_`',
  ],
  ['make the folder', 'Ordner anlegen'],
  ['move away', 'wegräumen'],
  ['it is not a key file', 'sie ist keine Schlüsseldatei'],
  [
    'it was written by a newer version of the program',
    'sie stammt von einer neueren Version des Programms',
  ],
  [
    'it holds another key than its name says',
    'sie enthält einen anderen Schlüssel, als ihr Name sagt',
  ],
  ['`install.secret` beside it is missing', '`install.secret` daneben fehlt'],
  [
    'it, or `install.secret` beside it, was changed',
    'sie oder `install.secret` daneben wurde verändert',
  ],
  ['a file encrypted with a pass phrase', 'in einer mit Passphrase verschlüsselten Datei'],
  [
    'a file encrypted with your pass phrase',
    'in einer mit deiner Passphrase verschlüsselten Datei',
  ],
  ['a file that only this user can read', 'in einer Datei, die nur du lesen kannst'],
  ['the key store of the operating system', 'im Schlüsselspeicher des Systems'],
  ['it cannot be read', 'sie lässt sich nicht lesen'],
  ['it is longer than 4096 bytes', 'sie ist länger als 4096 Byte'],
  ['it is empty', 'sie ist leer'],
  ['no key can be derived from it', 'daraus lässt sich kein Schlüssel ableiten'],
  ['it is not `0x` and 130 hex digits', 'sie ist nicht `0x` und 130 Hex-Ziffern'],
  ['its last byte is neither 27 nor 28', 'ihr letztes Byte ist weder 27 noch 28'],
  ['its numbers are out of range', 'ihre Zahlen liegen außerhalb des Erlaubten'],
  ['its `s` is high', 'ihr `s` ist zu hoch'],
  ['another key made it', 'ein anderer Schlüssel hat sie gemacht'],
  ['it must have 12, 15, 18, 21 or 24 words', 'es müssen 12, 15, 18, 21 oder 24 Wörter sein'],
  ['a word is not in the English word list', 'ein Wort steht nicht in der englischen Wortliste'],
  [
    'its checksum is wrong: a word is mistyped or misplaced',
    'die Prüfsumme stimmt nicht: Ein Wort ist vertippt oder an der falschen Stelle',
  ],
  ['it is not a BIP-39 phrase', 'das sind keine Wörter nach BIP-39'],
  ['its name is not `<reward address>.txt`', 'ihr Name ist nicht `<Auszahlungsadresse>.txt`'],
  ['the address in its name is not valid', 'die Adresse in ihrem Namen ist ungültig'],
  ['it is not text', 'sie enthält keinen Text'],
  ['it is too large for a key file', 'sie ist zu groß für eine Schlüsseldatei'],
  ['its first line is not `Seed Phrase: …`', 'ihre erste Zeile ist nicht `Seed Phrase: …`'],
  [
    'its second line is not `Identity Wallet Address: …`',
    'ihre zweite Zeile ist nicht `Identity Wallet Address: …`',
  ],
  [
    'its words are no recovery phrase: one is mistyped or missing',
    'ihre Wörter sind keine Wiederherstellungswörter: Eins ist vertippt oder fehlt',
  ],
  ['its address is not the one of its words', 'ihre Adresse passt nicht zu ihren Wörtern'],
  ['it did not keep a new entry', 'er hat einen neuen Eintrag nicht behalten'],
  ['it holds no recovery phrase', 'darin sind keine Wiederherstellungswörter'],
  ['no thread can be started', 'es lässt sich kein Thread starten'],
  ['it failed inside', 'er ist gescheitert'],
  ['no such service answers in this session', 'in dieser Sitzung antwortet kein solcher Dienst'],
  ['this system has none', 'dieses System hat keinen'],
  ['it holds more than one entry of this name', 'er hat mehr als einen Eintrag dieses Namens'],
  ['it refuses the entry', 'er lehnt den Eintrag ab'],
  // Chains.
  [
    'the node at {} serves chain {}, where nothing of interest lies',
    'der Node unter {0} bedient die Chain {1}, auf der nichts Wichtiges liegt',
  ],
  ['set a node of one of these chains: {}', 'nimm einen Node einer dieser Chains: {0}'],
  ['there are as many nodes as can be kept', 'mehr Nodes lassen sich nicht merken'],
  ['remove one that you no longer use', 'entferne einen, den du nicht mehr brauchst'],
  ['there is no such node any more', 'diesen Node gibt es nicht mehr'],
  ['there is no reward address to ask about', 'es gibt keine Auszahlungsadresse zum Nachfragen'],
  ['set it first', 'leg sie erst fest'],
  ['no node of a chain is set', 'es ist kein Node einer Chain festgelegt'],
  ['set an RPC address first', 'leg erst eine RPC-Adresse fest'],
  ['it is not hexadecimal', 'sie ist nicht hexadezimal'],
  ['it is not one word of 32 bytes', 'sie ist kein Wort aus 32 Byte'],
  ['it is no address', 'sie ist keine Adresse'],
  [
    'the address of a node cannot be used: {}',
    'die Adresse eines Nodes lässt sich nicht nutzen: {0}',
  ],
  [
    'the node at {} cannot be reached; check its address and the connection',
    'der Node unter {0} ist nicht erreichbar; prüf seine Adresse und die Verbindung',
  ],
  [
    'the node at {} did not answer within {} ms; try again, or set another one',
    'der Node unter {0} antwortete {1} ms lang nicht; versuch es noch mal oder nimm einen anderen',
  ],
  [
    'the node at {} refused with HTTP status {}; check its address and access key',
    'der Node unter {0} lehnte mit HTTP-Status {1} ab; prüf seine Adresse und den Zugangsschlüssel',
  ],
  [
    'the node at {} sent more than {} bytes; set another one',
    'der Node unter {0} schickte mehr als {1} Byte; nimm einen anderen',
  ],
  [
    'what answers at {} is no node of a chain: {}',
    'was unter {0} antwortet, ist kein Node einer Chain: {1}',
  ],
  ['the node at {} says: {} (code {})', 'der Node unter {0} meldet: {1} (Code {2})'],
  [
    'the node at {} serves chain {}, and chain {} is needed',
    'der Node unter {0} bedient die Chain {1}, gebraucht wird die Chain {2}',
  ],
  [
    'chain {} has no such contract at {}',
    'auf der Chain {0} gibt es unter {1} keinen solchen Contract',
  ],
  [
    'the contract at {} answers in another form: {}',
    'der Contract unter {0} antwortet in anderer Form: {1}',
  ],
  [
    "Neurino's own steps: the original table is not public. Each piece boosts the three best cards of its owner.",
    'Neurinos eigene Stufen: Die ursprüngliche Tabelle ist nicht öffentlich. Jedes Stück verstärkt die drei besten Karten seines Besitzers.',
  ],
  ['nobody holds so many pieces', 'so viele Stück hält niemand'],
  ['no token has so many decimals', 'so viele Nachkommastellen hat kein Token'],
  ['it is a link such as `https://rpc.example`', 'gemeint ist ein Link wie `https://rpc.example`'],
  [
    'it must not hold a user name or a password',
    'sie darf weder Benutzernamen noch Passwort enthalten',
  ],
  ['it names no host', 'sie nennt keinen Server'],
  [
    'a node elsewhere is asked by `https` only: anybody on the way could change its answers',
    'ein Node woanders wird nur über `https` gefragt: Sonst könnte jeder unterwegs die Antworten ändern',
  ],
  ['it begins with `https://`', 'sie beginnt mit `https://`'],
  ['its chain has no number', 'seine Chain hat keine Nummer'],
  ["the contract's answer is no text", 'die Antwort des Contracts ist kein Text'],
  ['its answer is not JSON', 'seine Antwort ist kein JSON'],
  ['it answers another question', 'er antwortet auf eine andere Frage'],
  ['its answer is empty', 'seine Antwort ist leer'],
  ['something failed', 'etwas ist schiefgegangen'],
];
