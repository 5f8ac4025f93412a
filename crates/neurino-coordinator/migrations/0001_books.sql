-- The books of a coordinator. Rules that must never break are kept here, not only in the program:
-- a job that ended stays ended, a job is paid once, postings and receipts are never changed.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    id              TEXT PRIMARY KEY,
    payer           TEXT NOT NULL,
    idempotency_key TEXT,
    rule_set        TEXT NOT NULL,
    -- JSON of the job; deleted with the output some time after the end.
    spec            TEXT,
    state           TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'succeeded', 'failed', 'cancelled')),
    -- Rises with every lease; only the newest lease can be paid.
    fence           INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,
    losses          INTEGER NOT NULL DEFAULT 0,
    no_node_wait_ms INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    finished_at_ms  INTEGER,
    output          TEXT,
    error           TEXT
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX job_idempotency ON job (payer, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_open ON job (id) WHERE state IN ('queued', 'leased');
CREATE INDEX job_payload ON job (finished_at_ms) WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL;

CREATE TRIGGER job_stays_ended BEFORE UPDATE OF state ON job
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state
BEGIN
    SELECT RAISE(ABORT, 'a job that ended stays ended');
END;

CREATE TRIGGER job_fence_rises BEFORE UPDATE OF fence ON job
WHEN NEW.fence < OLD.fence
BEGIN
    SELECT RAISE(ABORT, 'a fence only rises');
END;

CREATE TABLE attempt (
    lease         TEXT PRIMARY KEY,
    job           TEXT NOT NULL REFERENCES job (id),
    fence         INTEGER NOT NULL,
    node          TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN
        ('running', 'paid', 'failed', 'expired', 'handed_back', 'lost', 'cancelled')),
    granted_at_ms INTEGER NOT NULL,
    deadline_ms   INTEGER NOT NULL,
    ended_at_ms   INTEGER,
    UNIQUE (job, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE posting (
    event        TEXT NOT NULL,
    account      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    points       TEXT NOT NULL,
    amount_micro INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (event, account, kind, points)
) STRICT, WITHOUT ROWID;

CREATE INDEX posting_account ON posting (account, points, at_ms, amount_micro);

CREATE TRIGGER posting_never_changes BEFORE UPDATE ON posting
BEGIN
    SELECT RAISE(ABORT, 'postings are never changed');
END;

CREATE TRIGGER posting_never_goes BEFORE DELETE ON posting
BEGIN
    SELECT RAISE(ABORT, 'postings are never deleted');
END;

CREATE TABLE receipt (
    lease         TEXT PRIMARY KEY REFERENCES attempt (lease),
    job           TEXT NOT NULL UNIQUE REFERENCES job (id),
    node          TEXT NOT NULL,
    points        TEXT NOT NULL,
    amount_micro  INTEGER NOT NULL,
    settled_at_ms INTEGER NOT NULL UNIQUE,
    -- JSON of the signed receipt.
    body          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX receipt_node ON receipt (node, settled_at_ms);

CREATE TRIGGER receipt_never_changes BEFORE UPDATE ON receipt
BEGIN
    SELECT RAISE(ABORT, 'receipts are never changed');
END;

CREATE TRIGGER receipt_never_goes BEFORE DELETE ON receipt
BEGIN
    SELECT RAISE(ABORT, 'receipts are never deleted');
END;

CREATE TABLE api_key (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    sha256        BLOB NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
