// Words of the content filter.

export const filter = {
  title: 'Content filter',
  intro:
    'Leaves jobs whose prompts hold certain words to other machines. It reads prompts only: nothing looks at what is made.',
  refused: 'The filter stays as it was',
  label: 'Leave jobs with these words to others',
  labelHelp: 'Default: off, every job is computed. Whoever asked does not hear which word it was.',
  list: 'Words and phrases',
  listHelp: 'Whole words, in small or capital letters. They count from the next job on.',
  placeholder: 'Word or phrase',
  addLabel: 'Another word or phrase',
  add: 'Add',
  remove: (word: string) => `Remove ${word}`,
  off: 'Off: jobs are computed whatever they ask for.',
  onWithout: 'Add a word: without one, every job is computed.',
  on: (n: number) =>
    n === 1
      ? 'On: jobs with this word are not taken.'
      : `On: jobs with one of these ${n} entries are not taken.`,
};
