// The German words about a person's own models; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const own: Catalogue['own'] = {
  open: 'Eigenes Modell hinzufügen',
  title: 'Eigenes Modell hinzufügen',
  intro:
    'Eine GGUF-Datei, ein .safetensors-Checkpoint oder ein Ordner, wie Modellseiten ihn anbieten. Deine Dateien bleiben, wo sie sind, und belegen nichts doppelt, wo das Laufwerk es erlaubt.',
  label: 'Datei oder Ordner',
  placeholder: '/home/ich/modelle/mein-modell.gguf',
  file: 'Datei …',
  folder: 'Ordner …',
  look: 'Ansehen',
  looking: 'Wird angesehen …',
  noModel: 'Das lässt sich nicht hinzufügen',
  makes: 'Macht',
  kind: 'Art',
  context: 'Kontext',
  tokens: (count: string) => `${count} Tokens`,
  size: 'Größe',
  files: (size: string, count: number) => (count === 1 ? size : `${size} in ${count} Dateien`),
  licence: 'Lizenz',
  unknownLicence: 'Unbekannt: Die Dateien sagen es nicht. Sieh nach, woher du es hast.',
  mayBe: (model: string) =>
    `Eine Datei von ${model} ist genauso groß. Ist es diese, wird es dieses Modell.`,
  id: 'Name im Netz',
  idHelp: 'Kleine Buchstaben, Ziffern, Punkte und Striche. Jobs fragen unter diesem Namen danach.',
  add: 'Hinzufügen',
  another: 'Anderes wählen',
};
