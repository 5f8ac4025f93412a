// The phrase book of the network's lists and the signed catalogue; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  // What is asked for.
  ['This version looks for no newer catalogue.', 'Diese Version sucht keinen neueren Katalog'],
  [
    'a newer version of Neurino brings newer models',
    'eine neuere Version von Neurino bringt neuere Modelle mit',
  ],
  [
    'give its https address, or choose the file of the list',
    'gib ihre https-Adresse an oder wähle die Datei der Liste',
  ],
  ['the list of models is missing', 'die Liste der Modelle fehlt'],
  [
    '{} needs an https address or the whole path of a file',
    '{0} braucht eine https-Adresse oder den ganzen Pfad einer Datei',
  ],
  [
    'Check the address; or save the list with your browser, and choose that file.',
    'Prüf die Adresse; oder speichere die Liste mit deinem Browser und wähle diese Datei',
  ],
  [
    'The lists were read. New models: {}. Not to be used: {}.',
    'Die Listen sind gelesen. Neue Modelle: {0}. Nicht zu gebrauchen: {1}.',
  ],
  // Why a list or a catalogue cannot be used.
  ['{} cannot be used', '{0} lässt sich nicht nutzen'],
  ['the list of models', 'die Liste der Modelle'],
  ['the list of autoencoders', 'die Liste der Autoencoder'],
  ['the list of LoRAs', 'die Liste der LoRAs'],
  ['the signed catalogue', 'der signierte Katalog'],
  [
    'its address begins neither with https nor leads to this machine',
    'die Adresse beginnt weder mit https noch führt sie zu diesem Rechner',
  ],
  ['it has more than {} MB', 'mehr als {0} MB sind nicht erlaubt'],
  ['`{}` is not a file', '`{0}` ist keine Datei'],
  [
    'it is not a list in JSON as the network has it: {}',
    'das ist keine Liste in JSON, wie das Netzwerk sie hat: {0}',
  ],
  [
    'the connection to {} broke before all of it had come',
    'die Verbindung zu {0} brach ab, bevor alles da war',
  ],
  ['it cannot be read: {}', 'das lässt sich nicht lesen: {0}'],
  ['its content cannot be read: {}', 'der Inhalt lässt sich nicht lesen: {0}'],
  [
    'it is version {}, and version {} is here',
    'angeboten ist Fassung {0}, und Fassung {1} ist schon hier',
  ],
  [
    'it is version {}, and version {} was here',
    'angeboten ist Fassung {0}, und hier war schon Fassung {1}',
  ],
  // Why an entry of a list is left out.
  [
    "the lists name no SHA-256 for the files of language models; the network's signed catalogue has to",
    'die Listen nennen keine SHA-256 für die Dateien von Sprachmodellen; das muss der signierte Katalog des Netzwerks tun',
  ],
  [
    "FLUX.1 needs files that the lists do not name; the network's signed catalogue has to",
    'FLUX.1 braucht Dateien, die in den Listen fehlen; das muss der signierte Katalog des Netzwerks tun',
  ],
  [
    '`{}` is a kind that this version does not know',
    'die Art `{0}` kennt diese Version von Neurino nicht',
  ],
  [
    'it does not say on which model it is based',
    'es steht nicht dabei, auf welchem Modell es beruht',
  ],
  [
    'the list names it more than once, and not alike; nobody knows which one holds',
    'die Liste nennt es mehrmals und verschieden; niemand weiß, was gilt',
  ],
  [
    'its {} `{}` is listed more than once, and not alike',
    'sein Teil `{1}` ({0}) steht mehrmals und verschieden in der Liste',
  ],
  ['its {} `{}` is not in the list', 'sein Teil `{1}` ({0}) steht nicht in der Liste'],
  ['base', 'Grundmodell'],
  ['autoencoder', 'Autoencoder'],
  ['`{}` is no name for a file', '`{0}` taugt nicht als Dateiname'],
  [
    'the list has no SHA-256 for `{}`, so nothing could check it',
    'die Liste hat keine SHA-256 für `{0}`, also könnte nichts die Datei prüfen',
  ],
  ['the list has no https address for `{}`', 'die Liste hat keine https-Adresse für `{0}`'],
  [
    'a model of this name with other files is known already, and stays',
    'ein Modell dieses Namens mit anderen Dateien ist schon bekannt und bleibt',
  ],
  [
    "another model's name differs from it in capital letters alone",
    'der Name eines anderen Modells unterscheidet sich nur in der Großschreibung',
  ],
  ['the size of `{}` is not known: {}', 'die Größe von `{0}` ist nicht bekannt: {1}'],
  ['the size of `{}` is not known', 'die Größe von `{0}` ist nicht bekannt'],
  // Settings that no job may have.
  ['{} {} becomes {}', '{0} {1} wird zu {2}'],
  ['guidance {} becomes {}', 'Nähe zum Text: {0} wird zu {1}'],
  ['width', 'Breite'],
  ['height', 'Höhe'],
  ['steps', 'Schritte'],
];
