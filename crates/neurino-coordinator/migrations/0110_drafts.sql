-- Entries of an epoch are written before its file, a few at a time: a week of a busy network is too much for
-- one transaction. Until the file is there they are a draft, which counts for nothing and may be begun anew.

-- The table without the reference to the file, which comes last now; otherwise as it was.
CREATE TABLE epoch_entry_anew (
    lease         TEXT NOT NULL REFERENCES receipt (lease),
    movement      TEXT NOT NULL CHECK (movement IN ('reward', 'clawback', 'return')),
    epoch         INTEGER NOT NULL,
    -- Its place among the entries of the epoch, from zero.
    place         INTEGER NOT NULL,
    organic_micro INTEGER NOT NULL,
    -- The canonical line.
    line          TEXT NOT NULL,
    PRIMARY KEY (lease, movement)
) STRICT, WITHOUT ROWID;

INSERT INTO epoch_entry_anew (lease, movement, epoch, place, organic_micro, line)
SELECT lease, movement, epoch, place, organic_micro, line FROM epoch_entry;
DROP TABLE epoch_entry;
ALTER TABLE epoch_entry_anew RENAME TO epoch_entry;

CREATE UNIQUE INDEX epoch_entry_place ON epoch_entry (epoch, place);

CREATE TRIGGER epoch_entry_comes_before BEFORE INSERT ON epoch_entry
WHEN NEW.epoch IN (SELECT epoch FROM epoch_file)
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never changed');
END;

CREATE TRIGGER epoch_entry_never_changes BEFORE UPDATE ON epoch_entry
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never changed');
END;

CREATE TRIGGER epoch_entry_never_goes BEFORE DELETE ON epoch_entry
WHEN OLD.epoch IN (SELECT epoch FROM epoch_file)
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never deleted');
END;

-- Who makes an epoch right now. One row at most.
CREATE TABLE epoch_draft (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    -- Drawn for each attempt: whoever is not named writes no more.
    drafter       TEXT NOT NULL,
    -- 1 if it is the one who holds the books.
    is_router     INTEGER NOT NULL CHECK (is_router IN (0, 1)),
    epoch         INTEGER NOT NULL,
    -- When it took its last step.
    touched_at_ms INTEGER NOT NULL
) STRICT;

-- Movements are read page by page, by time and lease.
CREATE INDEX clawback_at ON clawback (at_ms, lease);
CREATE INDEX clawback_restored ON clawback (restored_at_ms, lease) WHERE restored_at_ms IS NOT NULL;
