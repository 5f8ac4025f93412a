-- Prepaid credits, terms of jobs, limits of keys, and what the router knows of nodes and models.

ALTER TABLE job ADD COLUMN class TEXT NOT NULL DEFAULT 'interactive';
-- Attempts its payer allows; the network's own limits hold besides.
ALTER TABLE job ADD COLUMN attempts_max INTEGER;
ALTER TABLE job ADD COLUMN frontend TEXT;
-- Set on prepaid jobs: the prices, and what was set aside and at last charged.
ALTER TABLE job ADD COLUMN price_list TEXT;
ALTER TABLE job ADD COLUMN held_micro INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN charged_micro INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN api_key TEXT;

-- Sums of the credit postings, kept by the trigger alone. Nobody but the issuance owes credits.
CREATE TABLE credit_balance (
    account      TEXT PRIMARY KEY,
    amount_micro INTEGER NOT NULL CHECK (amount_micro >= 0 OR account = 'issuance')
) STRICT, WITHOUT ROWID;

CREATE TRIGGER posting_of_credits AFTER INSERT ON posting WHEN NEW.points = 'credit'
BEGIN
    INSERT OR IGNORE INTO credit_balance (account, amount_micro) VALUES (NEW.account, 0);
    UPDATE credit_balance SET amount_micro = amount_micro + NEW.amount_micro
    WHERE account = NEW.account;
END;

-- What a key's jobs cost in a month (UTC), open ones at most; for its budget.
CREATE TABLE key_spend (
    api_key      TEXT NOT NULL,
    month        TEXT NOT NULL,
    amount_micro INTEGER NOT NULL,
    PRIMARY KEY (api_key, month)
) STRICT, WITHOUT ROWID;

-- Whose account a key pays from; its own when absent.
ALTER TABLE api_key ADD COLUMN payer TEXT;
ALTER TABLE api_key ADD COLUMN scopes TEXT NOT NULL DEFAULT 'text,image,jobs';
ALTER TABLE api_key ADD COLUMN prepaid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_key ADD COLUMN budget_micro INTEGER;
ALTER TABLE api_key ADD COLUMN requests_per_min INTEGER;
ALTER TABLE api_key ADD COLUMN units_per_min INTEGER;
ALTER TABLE api_key ADD COLUMN frontend TEXT;
ALTER TABLE api_key ADD COLUMN revoked_at_ms INTEGER;
-- The secret before the last rotation, and until when it is still good.
ALTER TABLE api_key ADD COLUMN old_sha256 BLOB;
ALTER TABLE api_key ADD COLUMN old_until_ms INTEGER;

-- Who brought a model, and the votes for it.
CREATE TABLE pod (
    model    TEXT PRIMARY KEY,
    deployer TEXT,
    votes    INTEGER NOT NULL DEFAULT 0 CHECK (votes >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE node_vote (
    node  TEXT PRIMARY KEY,
    votes INTEGER NOT NULL CHECK (votes >= 0)
) STRICT, WITHOUT ROWID;

-- Seconds a node was connected on a day (days since the Unix epoch).
CREATE TABLE uptime (
    node    TEXT NOT NULL,
    day     INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    PRIMARY KEY (node, day)
) STRICT, WITHOUT ROWID;

-- Rises when somebody changed what a running coordinator keeps in memory.
INSERT INTO meta (key, value) VALUES ('settings_version', '1');
CREATE TRIGGER key_added AFTER INSERT ON api_key BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER key_changed AFTER UPDATE ON api_key BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER pod_added AFTER INSERT ON pod BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER pod_changed AFTER UPDATE ON pod BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER vote_added AFTER INSERT ON node_vote BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER vote_changed AFTER UPDATE ON node_vote BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
