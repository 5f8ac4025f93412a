-- Weekly epochs: what was published stays as it is. A movement of points is in one epoch, once.

CREATE TABLE epoch_file (
    -- Weeks since Thursday, 1 January 1970.
    epoch      INTEGER PRIMARY KEY,
    made_at_ms INTEGER NOT NULL,
    -- JSON: root, totals and demand, for lists.
    summary    TEXT NOT NULL,
    -- The canonical file, signed.
    body       TEXT NOT NULL
) STRICT;

CREATE TRIGGER epoch_file_never_changes BEFORE UPDATE ON epoch_file
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never changed');
END;

CREATE TRIGGER epoch_file_never_goes BEFORE DELETE ON epoch_file
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never deleted');
END;

CREATE TABLE epoch_entry (
    lease         TEXT NOT NULL REFERENCES receipt (lease),
    movement      TEXT NOT NULL CHECK (movement IN ('reward', 'clawback', 'return')),
    epoch         INTEGER NOT NULL REFERENCES epoch_file (epoch),
    -- Its place among the entries of the epoch, from zero.
    place         INTEGER NOT NULL,
    organic_micro INTEGER NOT NULL,
    -- The canonical line.
    line          TEXT NOT NULL,
    PRIMARY KEY (lease, movement)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX epoch_entry_place ON epoch_entry (epoch, place);

CREATE TRIGGER epoch_entry_never_changes BEFORE UPDATE ON epoch_entry
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never changed');
END;

CREATE TRIGGER epoch_entry_never_goes BEFORE DELETE ON epoch_entry
BEGIN
    SELECT RAISE(ABORT, 'a published epoch is never deleted');
END;

-- What those who are paid held at some time, as JSON; the newest before an epoch's end counts.
CREATE TABLE holdings (
    taken_at_ms INTEGER PRIMARY KEY,
    body        TEXT NOT NULL
) STRICT;

-- Where payers lock what their vouchers promise. One row at most.
CREATE TABLE voucher_escrow (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    chain_id        INTEGER NOT NULL CHECK (chain_id > 0),
    contract        TEXT NOT NULL,
    gateway         TEXT NOT NULL,
    -- Smallest units of the token that a micro-credit costs.
    units_per_micro INTEGER NOT NULL CHECK (units_per_micro > 0)
) STRICT;

CREATE TABLE voucher_channel (
    -- Address of the payer, in lower case; names its account, too.
    payer            TEXT PRIMARY KEY,
    deposit_micro    INTEGER NOT NULL CHECK (deposit_micro >= 0),
    -- What the best voucher promises; only rises.
    cumulative_micro INTEGER NOT NULL DEFAULT 0 CHECK (cumulative_micro >= 0),
    -- The epoch of that voucher and its signature, for the claim on the chain.
    epoch            INTEGER NOT NULL DEFAULT 0,
    signature        TEXT,
    closed_at_ms     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TRIGGER voucher_only_rises BEFORE UPDATE OF cumulative_micro ON voucher_channel
WHEN NEW.cumulative_micro < OLD.cumulative_micro
BEGIN
    SELECT RAISE(ABORT, 'what was promised only rises');
END;

CREATE TRIGGER escrow_added AFTER INSERT ON voucher_escrow BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER escrow_changed AFTER UPDATE ON voucher_escrow BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
