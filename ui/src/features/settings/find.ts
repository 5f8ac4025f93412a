// Finds settings by the words that the page shows, in whatever language it shows them.

/** What a person would look at as one thing inside a card. */
const ROWS = '.row, details, fieldset, .limit, li, dl > div';

/** Small letters without accents, so that `Uebungs` is not needed to find `Übung`. */
export function plain(text: string): string {
  return text
    .toLowerCase()
    .replaceAll('ß', 'ss')
    .normalize('NFD')
    .replace(/\p{Mn}/gu, '');
}

/** The words of a search. */
export function wordsOf(query: string): string[] {
  return plain(query).split(/\s+/).filter(Boolean);
}

/** Everything that an element says, to the eye or to a screen reader. */
function textOf(element: Element): string {
  const named = [element, ...element.querySelectorAll('[aria-label], [placeholder]')];
  const names = named.flatMap((one) =>
    ['aria-label', 'placeholder'].map((a) => one.getAttribute(a)),
  );
  return plain([element.textContent, ...names].join(' '));
}

/** Marks the cards and rows below `root` that hold all the words; returns how many cards do. */
export function mark(root: Element, query: string): number {
  const words = wordsOf(query);
  const holds = (text: string) => words.length > 0 && words.every((word) => text.includes(word));
  let found = 0;
  for (const card of root.querySelectorAll('section.card')) {
    const inside = holds(textOf(card));
    card.toggleAttribute('data-found', inside);
    if (inside) found += 1;
    const rows = [...card.querySelectorAll(ROWS)].filter((row) => inside && holds(textOf(row)));
    for (const row of card.querySelectorAll(ROWS)) {
      // The innermost: a list is not marked for one of its rows.
      const hit = rows.includes(row) && !rows.some((other) => other !== row && row.contains(other));
      row.toggleAttribute('data-hit', hit);
    }
    for (const row of rows) if (row instanceof HTMLDetailsElement) row.open = true;
  }
  return found;
}

const KEY = 'neurino-advanced';

/** Whether the person wants to see everything. */
export function showsAdvanced(): boolean {
  try {
    return localStorage.getItem(KEY) === 'yes';
  } catch {
    return false;
  }
}

/** Remembers that for the next time. */
export function rememberAdvanced(on: boolean): void {
  try {
    localStorage.setItem(KEY, on ? 'yes' : 'no');
  } catch {
    // Without a place to keep it, it holds until the window closes.
  }
}
