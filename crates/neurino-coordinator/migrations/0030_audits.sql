-- Results that are computed again, what came of it, and what that says of nodes.

-- JSON: who may compute a job that checks another one's result.
ALTER TABLE job ADD COLUMN placement TEXT;

-- By what a copy of a picture is known that was written anew: sixteen by sixteen colours.
ALTER TABLE picture ADD COLUMN thumb BLOB;
ALTER TABLE picture ADD COLUMN model TEXT;
-- Decimal: SQLite has no unsigned numbers.
ALTER TABLE picture ADD COLUMN seed TEXT;

-- Long answers, by digest of answer and prompt. Rows go with the job's output.
CREATE TABLE text_mark (
    job    TEXT PRIMARY KEY REFERENCES job (id),
    owner  TEXT NOT NULL,
    model  TEXT NOT NULL,
    answer BLOB NOT NULL,
    prompt BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX text_mark_answer ON text_mark (answer);

CREATE TABLE audit (
    -- The job whose result is checked.
    job           TEXT PRIMARY KEY REFERENCES job (id),
    lease         TEXT NOT NULL REFERENCES receipt (lease),
    node          TEXT NOT NULL,
    -- Names the node's program and device at that time; empty if it was gone.
    class         TEXT NOT NULL,
    model         TEXT NOT NULL,
    -- At which rate it was drawn, and whether something else than the draw called for it.
    rate_ppm      INTEGER NOT NULL,
    suspicion     TEXT,
    state         TEXT NOT NULL CHECK (state IN ('waiting', 'second', 'third', 'held', 'failed',
        'unresolved', 'no_independent_auditor')),
    -- The jobs that compute it again, and whether their nodes are of its class.
    second        TEXT REFERENCES job (id),
    second_class  INTEGER NOT NULL DEFAULT 0,
    auditor       TEXT,
    third         TEXT REFERENCES job (id),
    third_class   INTEGER NOT NULL DEFAULT 0,
    validator     TEXT,
    -- JSON of the last comparison.
    finding       TEXT,
    drawn_at_ms   INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_open ON audit (job) WHERE state IN ('waiting', 'second', 'third');
CREATE INDEX audit_node ON audit (node, state);

CREATE TRIGGER audit_stays_decided BEFORE UPDATE OF state ON audit
WHEN OLD.state NOT IN ('waiting', 'second', 'third') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'an audit that was decided stays decided');
END;

-- What the audits of a node came to, as JSON.
CREATE TABLE trust (
    node   TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE conviction (
    id            INTEGER PRIMARY KEY,
    node          TEXT NOT NULL,
    at_ms         INTEGER NOT NULL,
    -- Earnings since then are called back.
    since_ms      INTEGER NOT NULL,
    -- JSON: the record at that time and the jobs whose audits failed.
    evidence      TEXT NOT NULL,
    appeal        TEXT,
    appealed_at_ms INTEGER,
    granted       INTEGER,
    note          TEXT,
    decided_at_ms INTEGER
) STRICT;

CREATE UNIQUE INDEX conviction_stands ON conviction (node) WHERE granted IS NULL OR granted = 0;

CREATE TRIGGER conviction_never_goes BEFORE DELETE ON conviction
BEGIN
    SELECT RAISE(ABORT, 'convictions are never deleted');
END;

-- Paid leases whose pay was called back, and given back if an appeal was granted. The postings are
-- the ledger's; this says which.
CREATE TABLE clawback (
    lease         TEXT PRIMARY KEY REFERENCES receipt (lease),
    node          TEXT NOT NULL,
    conviction    INTEGER NOT NULL REFERENCES conviction (id),
    at_ms         INTEGER NOT NULL,
    restored_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX clawback_node ON clawback (node);

-- Nodes whose word decides when two others differ.
CREATE TABLE validator (
    node TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TRIGGER validator_added AFTER INSERT ON validator BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER validator_removed AFTER DELETE ON validator BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER appeal_decided AFTER UPDATE OF granted ON conviction BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
