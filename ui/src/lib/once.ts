/** The rows in their order, each once by its key: pages that are read one after another may overlap. */
export function once<Row>(rows: readonly Row[], key: (row: Row) => string): Row[] {
  const seen = new Set<string>();
  return rows.filter((row) => {
    const own = key(row);
    const first = !seen.has(own);
    seen.add(own);
    return first;
  });
}
