// The hours of the week as rows of letters, one for each hour.

export type Letter = 'm' | 'c' | '.';

export const letters: readonly Letter[] = ['m', 'c', '.'];

/** The week with one hour changed. */
export function painted(week: readonly string[], day: number, hour: number, letter: Letter) {
  return week.map((row, index) =>
    index === day ? row.slice(0, hour) + letter + row.slice(hour + 1) : row,
  );
}

/** What stands at an hour; what is no letter of ours is no mining. */
export function letterAt(week: readonly string[], day: number, hour: number): Letter {
  const letter = week[day]?.[hour];
  return letter === 'm' || letter === 'c' ? letter : '.';
}

/** `09:00`; the end of a day is `24:00`. */
export function clock(hour: number): string {
  return `${hour.toString().padStart(2, '0')}:00`;
}

/** Where an arrow key leads within 7 days of 24 hours; `null` for any other key. */
export function moved(key: string, day: number, hour: number): [number, number] | null {
  switch (key) {
    case 'ArrowLeft':
      return [day, Math.max(0, hour - 1)];
    case 'ArrowRight':
      return [day, Math.min(23, hour + 1)];
    case 'ArrowUp':
      return [Math.max(0, day - 1), hour];
    case 'ArrowDown':
      return [Math.min(6, day + 1), hour];
    case 'Home':
      return [day, 0];
    case 'End':
      return [day, 23];
    default:
      return null;
  }
}
