// The German words about the network's lists and the signed catalogue; part of de.ts.

import type { Catalogue } from '../language.svelte';

export const catalogue: Catalogue['catalogue'] = {
  of: (date: string, version: number) => `Katalog vom ${date}, Fassung ${version}.`,
  version: (version: number) => `Katalog, Fassung ${version}.`,
  built: 'Die Modelle dieser Neurino-Version.',
  checked: (at: string) => `Nach einem neueren Katalog gesehen: ${at}.`,
  notYet: 'Nach einem neueren Katalog wurde noch nicht gesehen.',
  never: 'Diese Version sucht keinen neueren Katalog.',
  look: 'Jetzt nachsehen',
  looking: 'Wird nachgesehen …',
  problem: 'Kein neuerer Katalog',
  open: 'Listen des Netzwerks hinzufügen …',
  title: 'Die Listen des Netzwerks',
  intro:
    'Das Netzwerk nennt seine Modelle in drei Listen. Modelle, für die eine Liste mit einer SHA-256 bürgt, kommen in den Katalog; der Rest bleibt draußen und wird genannt.',
  places: {
    models: 'Liste der Modelle',
    vae: 'Liste der Autoencoder',
    lora: 'Liste der LoRAs',
  },
  optional: 'Darf leer bleiben.',
  placeholder: 'https://…/modelle.json',
  choose: (list: string) => `Datei wählen: ${list}`,
  help: 'Eine https-Adresse oder eine Datei auf diesem Rechner. Von den Modellen wird noch nichts geladen.',
  go: 'Listen lesen',
  refused: 'Die Listen wurden nicht gelesen',
  reading: 'Die Listen werden gelesen',
  asked: (done: number, total: number) => `Größen von Dateien erfragt: ${done} von ${total}`,
  keepsOn: 'Es geht weiter, auch wenn du das hier schließt.',
  added: (count: number) =>
    count === 1 ? 'Ein Modell kam hinzu.' : `${count} Modelle kamen hinzu.`,
  nothing: 'Die Listen nennen kein Modell, das neu ist und sich nutzen lässt.',
  known: (count: number) =>
    count === 1 ? 'Eines war schon bekannt.' : `${count} waren schon bekannt.`,
  changed: 'Einstellungen jenseits dessen, was ein Job verlangen darf',
  leftOut: (count: number) =>
    count === 1 ? 'Ein Eintrag blieb draußen' : `${count} Einträge blieben draußen`,
  others: 'Andere Listen lesen',
  details: 'Was draußen blieb',
};
