// Der Inhaltsfilter auf Deutsch.

import type { Catalogue } from '../language.svelte';

export const filter: Catalogue['filter'] = {
  title: 'Inhaltsfilter',
  intro:
    'Überlässt Jobs, in deren Anfrage bestimmte Wörter stehen, anderen Rechnern. Er liest nur die Anfrage: Was dabei entsteht, sieht niemand an.',
  refused: 'Der Filter bleibt, wie er war',
  label: 'Jobs mit diesen Wörtern anderen überlassen',
  labelHelp:
    'Standard: aus, jeder Job wird gerechnet. Wer gefragt hat, erfährt nicht, welches Wort es war.',
  list: 'Wörter und Wortfolgen',
  listHelp: 'Ganze Wörter, groß oder klein geschrieben. Sie gelten ab dem nächsten Job.',
  placeholder: 'Wort oder Wortfolge',
  addLabel: 'Noch ein Wort oder eine Wortfolge',
  add: 'Hinzufügen',
  remove: (word: string) => `${word} entfernen`,
  off: 'Aus: Jobs werden gerechnet, was auch immer sie verlangen.',
  onWithout: 'Füg ein Wort hinzu: Ohne eines wird jeder Job gerechnet.',
  on: (n: number) =>
    n === 1
      ? 'An: Jobs mit diesem Wort werden nicht angenommen.'
      : `An: Jobs mit einem dieser ${n} Einträge werden nicht angenommen.`,
};
