-- Pictures are files beside the books; here is which job keeps which. Rows go with the job's output.

CREATE TABLE picture (
    job    TEXT PRIMARY KEY REFERENCES job (id),
    -- Hex digest of the file, which names it. Two jobs may have made the same picture.
    sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;
