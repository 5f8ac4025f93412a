// The words about a person's own models; part of the catalogue in strings.ts.

export const own = {
  open: 'Add your own model',
  title: 'Add your own model',
  intro:
    'A GGUF file, a .safetensors checkpoint, or a folder as model sites offer them. Your files stay where they are, and take no space twice where the drive allows it.',
  label: 'File or folder',
  placeholder: '/home/me/models/my-model.gguf',
  file: 'File…',
  folder: 'Folder…',
  look: 'Look',
  looking: 'Looking…',
  noModel: 'It cannot be added',
  makes: 'Makes',
  kind: 'Kind',
  context: 'Context',
  tokens: (count: string) => `${count} tokens`,
  size: 'Size',
  files: (size: string, count: number) => (count === 1 ? size : `${size} in ${count} files`),
  licence: 'Licence',
  unknownLicence: 'Unknown: the files do not say. Check where you got it.',
  mayBe: (model: string) =>
    `A file of ${model} has this very size. If it is that one, it becomes that model.`,
  id: 'Name on the network',
  idHelp: 'Small letters, digits, dots and dashes. Jobs ask for it by this name.',
  add: 'Add',
  another: 'Choose another',
};
