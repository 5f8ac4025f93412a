// The words about the network's lists and the signed catalogue; part of the catalogue in strings.ts.

export const catalogue = {
  of: (date: string, version: number) => `Catalogue of ${date}, version ${version}.`,
  version: (version: number) => `Catalogue, version ${version}.`,
  built: 'The models of this version of Neurino.',
  checked: (at: string) => `Looked for a newer catalogue: ${at}.`,
  notYet: 'A newer catalogue has not been looked for yet.',
  never: 'This version looks for no newer catalogue.',
  look: 'Look now',
  looking: 'Looking…',
  problem: 'No newer catalogue',
  open: "Add the network's lists…",
  title: "The network's lists",
  intro:
    'The network names its models in three lists. Models that a list vouches for with a SHA-256 are added to the catalogue; the rest is left out, and named.',
  places: {
    models: 'List of models',
    vae: 'List of autoencoders',
    lora: 'List of LoRAs',
  },
  optional: 'May stay empty.',
  placeholder: 'https://…/models.json',
  choose: (list: string) => `Choose a file: ${list}`,
  help: 'An https address, or a file on this machine. Nothing of a model is downloaded yet.',
  go: 'Read the lists',
  refused: 'The lists were not read',
  reading: 'Reading the lists',
  asked: (done: number, total: number) => `Sizes of files asked for: ${done} of ${total}`,
  keepsOn: 'It goes on when you close this.',
  added: (count: number) => (count === 1 ? 'One model was added.' : `${count} models were added.`),
  nothing: 'The lists name no model that is new and can be used.',
  known: (count: number) =>
    count === 1 ? 'One was known already.' : `${count} were known already.`,
  changed: 'Settings beyond what a job may ask for',
  leftOut: (count: number) =>
    count === 1 ? 'One entry was left out' : `${count} entries were left out`,
  others: 'Read other lists',
  details: 'What was left out',
};
