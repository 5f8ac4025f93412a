// Das Tastenkürzel auf Deutsch.

import type { Catalogue } from '../language.svelte';

export const hotkey: Catalogue['hotkey'] = {
  title: 'Tastenkürzel',
  intro:
    'Pausiert das Mining und setzt es fort, welches Fenster auch vorn ist. Standard: aus. Neurino hat die Tasten, solange es läuft, und gibt sie beim Beenden zurück.',
  off: 'Kein Tastenkürzel',
  choose: 'Tasten wählen',
  change: 'Tasten ändern',
  remove: 'Tastenkürzel entfernen',
  cancel: 'Abbrechen',
  press: 'Drück die Tasten zusammen',
  escape: 'Esc lässt alles, wie es ist.',
  bare: (keys: string) =>
    `${keys} brauchen andere Programme. Halte dazu Strg, Alt oder die Logo-Taste.`,
  unknown:
    'Diese Taste kann kein Kürzel sein. Nimm einen Buchstaben, eine Ziffer oder eine Funktionstaste.',
  refused: 'Das Tastenkürzel bleibt, wie es war',
  dead: 'Das Tastenkürzel tut im Moment nichts',
  wayland:
    'Unter Wayland kann kein Programm eine Taste für sich nehmen. Leg in den Tastatureinstellungen des Desktops diesen Befehl auf eine Taste:',
  notHere:
    'Dieses System gibt Programmen keine Tasten. Wo seine Einstellungen einen Befehl auf eine Taste legen, nimm diesen:',
  names: {
    Ctrl: 'Strg',
    Shift: 'Umschalt',
    Space: 'Leertaste',
    Insert: 'Einfg',
    Home: 'Pos1',
    End: 'Ende',
    PageUp: 'Bild auf',
    PageDown: 'Bild ab',
  },
};
