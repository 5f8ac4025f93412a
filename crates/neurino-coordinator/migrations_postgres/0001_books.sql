-- The books of a coordinator, as `migrations/` has them for SQLite. Rules that must never break are kept
-- here, not only in the program: a job that ended stays ended, a job is paid once, postings and receipts
-- are never changed. Texts sort by their bytes, whatever the server's language is.

-- Who routes. The epoch rises with every owner; each transaction of a router takes the row under its own
-- epoch first, so that one that was superseded writes nothing.
CREATE TABLE shard (
    name        TEXT COLLATE "C" PRIMARY KEY,
    owner       TEXT NOT NULL,
    epoch       BIGINT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL
);
INSERT INTO shard (name, owner, epoch, lease_until) VALUES ('router', '', 0, '-infinity');

CREATE FUNCTION epoch_rises() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.epoch < OLD.epoch OR (NEW.epoch = OLD.epoch AND NEW.owner <> OLD.owner) THEN
        RAISE EXCEPTION 'an epoch has one owner and only rises';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER shard_epoch_rises BEFORE UPDATE ON shard
FOR EACH ROW EXECUTE FUNCTION epoch_rises();

-- Raises the trigger's argument.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE job (
    id              TEXT COLLATE "C" PRIMARY KEY,
    payer           TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C",
    rule_set        TEXT NOT NULL,
    -- JSON of the job; deleted with the output some time after the end.
    spec            TEXT,
    state           TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('queued', 'leased', 'succeeded', 'failed', 'cancelled')),
    -- Rises with every lease; only the newest lease can be paid.
    fence           BIGINT NOT NULL DEFAULT 0,
    failures        BIGINT NOT NULL DEFAULT 0,
    losses          BIGINT NOT NULL DEFAULT 0,
    no_node_wait_ms BIGINT NOT NULL,
    created_at_ms   BIGINT NOT NULL,
    finished_at_ms  BIGINT,
    output          TEXT,
    error           TEXT,
    class           TEXT NOT NULL DEFAULT 'interactive',
    -- Attempts its payer allows; the network's own limits hold besides.
    attempts_max    BIGINT,
    frontend        TEXT,
    -- Set on prepaid jobs: the prices, and what was set aside and at last charged.
    price_list      TEXT,
    held_micro      BIGINT NOT NULL DEFAULT 0,
    charged_micro   BIGINT NOT NULL DEFAULT 0,
    api_key         TEXT COLLATE "C",
    -- JSON: who may compute a job that checks another one's result.
    placement       TEXT
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX job_idempotency ON job (payer, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_open ON job (id) WHERE state IN ('queued', 'leased');
CREATE INDEX job_payload ON job (finished_at_ms) WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL;

CREATE TRIGGER job_stays_ended BEFORE UPDATE OF state ON job FOR EACH ROW
WHEN (OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state)
EXECUTE FUNCTION refuse('a job that ended stays ended');

CREATE TRIGGER job_fence_rises BEFORE UPDATE OF fence ON job FOR EACH ROW
WHEN (NEW.fence < OLD.fence)
EXECUTE FUNCTION refuse('a fence only rises');

CREATE TABLE attempt (
    lease         TEXT COLLATE "C" PRIMARY KEY,
    job           TEXT COLLATE "C" NOT NULL REFERENCES job (id),
    fence         BIGINT NOT NULL,
    node          TEXT COLLATE "C" NOT NULL,
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN
        ('running', 'paid', 'failed', 'expired', 'handed_back', 'lost', 'cancelled')),
    granted_at_ms BIGINT NOT NULL,
    deadline_ms   BIGINT NOT NULL,
    ended_at_ms   BIGINT,
    UNIQUE (job, fence)
) WITH (fillfactor = 80);

CREATE TABLE posting (
    event        TEXT COLLATE "C" NOT NULL,
    account      TEXT COLLATE "C" NOT NULL,
    kind         TEXT COLLATE "C" NOT NULL,
    points       TEXT COLLATE "C" NOT NULL,
    amount_micro BIGINT NOT NULL,
    at_ms        BIGINT NOT NULL,
    PRIMARY KEY (event, account, kind, points)
);

CREATE INDEX posting_account ON posting (account, points, at_ms) INCLUDE (amount_micro);

CREATE TRIGGER posting_never_changes BEFORE UPDATE ON posting FOR EACH ROW
EXECUTE FUNCTION refuse('postings are never changed');
CREATE TRIGGER posting_never_goes BEFORE DELETE ON posting FOR EACH ROW
EXECUTE FUNCTION refuse('postings are never deleted');
CREATE TRIGGER posting_never_emptied BEFORE TRUNCATE ON posting
EXECUTE FUNCTION refuse('postings are never deleted');

CREATE TABLE receipt (
    lease         TEXT COLLATE "C" PRIMARY KEY REFERENCES attempt (lease),
    job           TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES job (id),
    node          TEXT COLLATE "C" NOT NULL,
    points        TEXT COLLATE "C" NOT NULL,
    amount_micro  BIGINT NOT NULL,
    settled_at_ms BIGINT NOT NULL UNIQUE,
    -- JSON of the signed receipt.
    body          TEXT NOT NULL
);

CREATE INDEX receipt_node ON receipt (node, settled_at_ms);

CREATE TRIGGER receipt_never_changes BEFORE UPDATE ON receipt FOR EACH ROW
EXECUTE FUNCTION refuse('receipts are never changed');
CREATE TRIGGER receipt_never_goes BEFORE DELETE ON receipt FOR EACH ROW
EXECUTE FUNCTION refuse('receipts are never deleted');
CREATE TRIGGER receipt_never_emptied BEFORE TRUNCATE ON receipt
EXECUTE FUNCTION refuse('receipts are never deleted');

CREATE TABLE api_key (
    id               TEXT COLLATE "C" PRIMARY KEY,
    name             TEXT NOT NULL,
    sha256           BYTEA NOT NULL UNIQUE,
    created_at_ms    BIGINT NOT NULL,
    -- Whose account a key pays from; its own when absent.
    payer            TEXT,
    scopes           TEXT NOT NULL DEFAULT 'text,image,jobs',
    prepaid          BOOLEAN NOT NULL DEFAULT FALSE,
    budget_micro     BIGINT,
    requests_per_min BIGINT,
    units_per_min    BIGINT,
    frontend         TEXT,
    revoked_at_ms    BIGINT,
    -- The secret before the last rotation, and until when it is still good.
    old_sha256       BYTEA,
    old_until_ms     BIGINT
);

-- Pictures are files beside the books; here is which job keeps which. Rows go with the job's output.
CREATE TABLE picture (
    job    TEXT COLLATE "C" PRIMARY KEY REFERENCES job (id),
    -- Hex digest of the file, which names it. Two jobs may have made the same picture.
    sha256 TEXT COLLATE "C" NOT NULL,
    -- By what a copy is known that was written anew: sixteen by sixteen colours.
    thumb  BYTEA,
    model  TEXT,
    -- Decimal: neither database has unsigned numbers.
    seed   TEXT
);

CREATE INDEX picture_sha256 ON picture (sha256);

-- Sums of the credit postings, kept by the trigger alone. Nobody but the issuance owes credits.
CREATE TABLE credit_balance (
    account      TEXT COLLATE "C" PRIMARY KEY,
    amount_micro BIGINT NOT NULL CHECK (amount_micro >= 0 OR account = 'issuance')
) WITH (fillfactor = 80);

CREATE FUNCTION add_to_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credit_balance (account, amount_micro) VALUES (NEW.account, 0) ON CONFLICT DO NOTHING;
    UPDATE credit_balance SET amount_micro = amount_micro + NEW.amount_micro
    WHERE account = NEW.account;
    RETURN NULL;
END $$;
CREATE TRIGGER posting_of_credits AFTER INSERT ON posting FOR EACH ROW
WHEN (NEW.points = 'credit') EXECUTE FUNCTION add_to_balance();

-- What a key's jobs cost in a month (UTC), open ones at most; for its budget.
CREATE TABLE key_spend (
    api_key      TEXT COLLATE "C" NOT NULL,
    month        TEXT COLLATE "C" NOT NULL,
    amount_micro BIGINT NOT NULL,
    PRIMARY KEY (api_key, month)
) WITH (fillfactor = 80);

-- Who brought a model, and the votes for it.
CREATE TABLE pod (
    model    TEXT COLLATE "C" PRIMARY KEY,
    deployer TEXT,
    votes    BIGINT NOT NULL DEFAULT 0 CHECK (votes >= 0)
);

CREATE TABLE node_vote (
    node  TEXT COLLATE "C" PRIMARY KEY,
    votes BIGINT NOT NULL CHECK (votes >= 0)
);

-- Seconds a node was connected on a day (days since the Unix epoch).
CREATE TABLE uptime (
    node    TEXT COLLATE "C" NOT NULL,
    day     BIGINT NOT NULL,
    seconds BIGINT NOT NULL,
    PRIMARY KEY (node, day)
);

-- Miners of the original protocol are paid at one address and sign with another key. The first key whose
-- result was paid is bound to the address for good.
CREATE TABLE original_binding (
    reward      TEXT COLLATE "C" PRIMARY KEY,
    identity    TEXT NOT NULL,
    bound_at_ms BIGINT NOT NULL
);

-- Long answers, by digest of answer and prompt. Rows go with the job's output.
CREATE TABLE text_mark (
    job    TEXT COLLATE "C" PRIMARY KEY REFERENCES job (id),
    owner  TEXT NOT NULL,
    model  TEXT NOT NULL,
    answer BYTEA NOT NULL,
    prompt BYTEA NOT NULL
);

CREATE INDEX text_mark_answer ON text_mark (answer);

-- Results that are computed again, and what came of it.
CREATE TABLE audit (
    -- The job whose result is checked.
    job           TEXT COLLATE "C" PRIMARY KEY REFERENCES job (id),
    lease         TEXT COLLATE "C" NOT NULL REFERENCES receipt (lease),
    node          TEXT COLLATE "C" NOT NULL,
    -- Names the node's program and device at that time; empty if it was gone.
    class         TEXT NOT NULL,
    model         TEXT NOT NULL,
    -- At which rate it was drawn, and whether something else than the draw called for it.
    rate_ppm      BIGINT NOT NULL,
    suspicion     TEXT,
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'second', 'third', 'held', 'failed',
        'unresolved', 'no_independent_auditor')),
    -- The jobs that compute it again, and whether their nodes are of its class.
    second        TEXT COLLATE "C" REFERENCES job (id),
    second_class  BOOLEAN NOT NULL DEFAULT FALSE,
    auditor       TEXT,
    third         TEXT COLLATE "C" REFERENCES job (id),
    third_class   BOOLEAN NOT NULL DEFAULT FALSE,
    validator     TEXT,
    -- JSON of the last comparison.
    finding       TEXT,
    drawn_at_ms   BIGINT NOT NULL,
    changed_at_ms BIGINT NOT NULL
);

CREATE INDEX audit_open ON audit (job) WHERE state IN ('waiting', 'second', 'third');
CREATE INDEX audit_node ON audit (node, state);

CREATE TRIGGER audit_stays_decided BEFORE UPDATE OF state ON audit FOR EACH ROW
WHEN (OLD.state NOT IN ('waiting', 'second', 'third') AND NEW.state <> OLD.state)
EXECUTE FUNCTION refuse('an audit that was decided stays decided');

-- What the audits of a node came to, as JSON.
CREATE TABLE trust (
    node   TEXT COLLATE "C" PRIMARY KEY,
    record TEXT NOT NULL
);

CREATE TABLE conviction (
    id             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node           TEXT COLLATE "C" NOT NULL,
    at_ms          BIGINT NOT NULL,
    -- Earnings since then are called back.
    since_ms       BIGINT NOT NULL,
    -- JSON: the record at that time and the jobs whose audits failed.
    evidence       TEXT NOT NULL,
    appeal         TEXT,
    appealed_at_ms BIGINT,
    granted        BOOLEAN,
    note           TEXT,
    decided_at_ms  BIGINT
);

CREATE UNIQUE INDEX conviction_stands ON conviction (node) WHERE granted IS NOT TRUE;

CREATE TRIGGER conviction_never_goes BEFORE DELETE ON conviction FOR EACH ROW
EXECUTE FUNCTION refuse('convictions are never deleted');

-- Paid leases whose pay was called back, and given back if an appeal was granted. The postings are the
-- ledger's; this says which.
CREATE TABLE clawback (
    lease          TEXT COLLATE "C" PRIMARY KEY REFERENCES receipt (lease),
    node           TEXT COLLATE "C" NOT NULL,
    conviction     BIGINT NOT NULL REFERENCES conviction (id),
    at_ms          BIGINT NOT NULL,
    restored_at_ms BIGINT
);

CREATE INDEX clawback_node ON clawback (node);

-- Nodes whose word decides when two others differ.
CREATE TABLE validator (
    node TEXT COLLATE "C" PRIMARY KEY
);

-- Rises when somebody changed what a running coordinator keeps in memory.
INSERT INTO meta (key, value) VALUES ('settings_version', '1');
CREATE FUNCTION settings_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'settings_version';
    RETURN NULL;
END $$;
CREATE TRIGGER key_changed AFTER INSERT OR UPDATE ON api_key
FOR EACH ROW EXECUTE FUNCTION settings_changed();
CREATE TRIGGER pod_changed AFTER INSERT OR UPDATE ON pod
FOR EACH ROW EXECUTE FUNCTION settings_changed();
CREATE TRIGGER vote_changed AFTER INSERT OR UPDATE ON node_vote
FOR EACH ROW EXECUTE FUNCTION settings_changed();
CREATE TRIGGER validator_changed AFTER INSERT OR DELETE ON validator
FOR EACH ROW EXECUTE FUNCTION settings_changed();
CREATE TRIGGER appeal_decided AFTER UPDATE OF granted ON conviction
FOR EACH ROW EXECUTE FUNCTION settings_changed();
