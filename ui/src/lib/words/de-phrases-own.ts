// The phrase book of a person's own models; see de-phrases.ts.

import type { Phrase } from './de-phrases';

export const phrases: readonly Phrase[] = [
  ['that is no model: {}', 'das ist kein Modell: {0}'],
  [
    "choose a GGUF file, a .safetensors checkpoint, or a folder with a model's files",
    'wähle eine GGUF-Datei, einen .safetensors-Checkpoint oder einen Ordner mit den Dateien eines Modells',
  ],
  [
    'choose a short name, for example my-model',
    'wähle einen kurzen Namen, zum Beispiel mein-modell',
  ],
  ['the files could not be read', 'die Dateien ließen sich nicht lesen'],
  ['The catalogue knows this file: it is {}.', 'Der Katalog kennt diese Datei: Es ist {0}'],
  ['{} is among your models now.', '{0} gehört jetzt zu deinen Modellen'],
];
