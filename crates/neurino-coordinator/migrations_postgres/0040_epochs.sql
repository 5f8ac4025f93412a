-- Weekly epochs: what was published stays as it is. A movement of points is in one epoch, once.

CREATE TABLE epoch_file (
    -- Weeks since Thursday, 1 January 1970.
    epoch      BIGINT PRIMARY KEY,
    made_at_ms BIGINT NOT NULL,
    -- JSON: root, totals and demand, for lists.
    summary    TEXT NOT NULL,
    -- The canonical file, signed.
    body       TEXT NOT NULL
);

CREATE TRIGGER epoch_file_never_changes BEFORE UPDATE ON epoch_file FOR EACH ROW
EXECUTE FUNCTION refuse('a published epoch is never changed');
CREATE TRIGGER epoch_file_never_goes BEFORE DELETE ON epoch_file FOR EACH ROW
EXECUTE FUNCTION refuse('a published epoch is never deleted');
CREATE TRIGGER epoch_file_never_emptied BEFORE TRUNCATE ON epoch_file
EXECUTE FUNCTION refuse('a published epoch is never deleted');

CREATE TABLE epoch_entry (
    lease         TEXT COLLATE "C" NOT NULL REFERENCES receipt (lease),
    movement      TEXT COLLATE "C" NOT NULL CHECK (movement IN ('reward', 'clawback', 'return')),
    epoch         BIGINT NOT NULL REFERENCES epoch_file (epoch),
    -- Its place among the entries of the epoch, from zero.
    place         BIGINT NOT NULL,
    organic_micro BIGINT NOT NULL,
    -- The canonical line.
    line          TEXT NOT NULL,
    PRIMARY KEY (lease, movement)
);

CREATE UNIQUE INDEX epoch_entry_place ON epoch_entry (epoch, place);

CREATE TRIGGER epoch_entry_never_changes BEFORE UPDATE ON epoch_entry FOR EACH ROW
EXECUTE FUNCTION refuse('a published epoch is never changed');
CREATE TRIGGER epoch_entry_never_goes BEFORE DELETE ON epoch_entry FOR EACH ROW
EXECUTE FUNCTION refuse('a published epoch is never deleted');
CREATE TRIGGER epoch_entry_never_emptied BEFORE TRUNCATE ON epoch_entry
EXECUTE FUNCTION refuse('a published epoch is never deleted');

-- What those who are paid held at some time, as JSON; the newest before an epoch's end counts.
CREATE TABLE holdings (
    taken_at_ms BIGINT PRIMARY KEY,
    body        TEXT NOT NULL
);

-- Where payers lock what their vouchers promise. One row at most.
CREATE TABLE voucher_escrow (
    one             BIGINT PRIMARY KEY CHECK (one = 1),
    chain_id        BIGINT NOT NULL CHECK (chain_id > 0),
    contract        TEXT NOT NULL,
    gateway         TEXT NOT NULL,
    -- Smallest units of the token that a micro-credit costs.
    units_per_micro BIGINT NOT NULL CHECK (units_per_micro > 0)
);

CREATE TABLE voucher_channel (
    -- Address of the payer, in lower case; names its account, too.
    payer            TEXT COLLATE "C" PRIMARY KEY,
    deposit_micro    BIGINT NOT NULL CHECK (deposit_micro >= 0),
    -- What the best voucher promises; only rises.
    cumulative_micro BIGINT NOT NULL DEFAULT 0 CHECK (cumulative_micro >= 0),
    -- The epoch of that voucher and its signature, for the claim on the chain.
    epoch            BIGINT NOT NULL DEFAULT 0,
    signature        TEXT,
    closed_at_ms     BIGINT
);

CREATE TRIGGER voucher_only_rises BEFORE UPDATE OF cumulative_micro ON voucher_channel FOR EACH ROW
WHEN (NEW.cumulative_micro < OLD.cumulative_micro)
EXECUTE FUNCTION refuse('what was promised only rises');

CREATE TRIGGER escrow_changed AFTER INSERT OR UPDATE ON voucher_escrow
FOR EACH ROW EXECUTE FUNCTION settings_changed();
