-- What was decided about the network, one line of JSON an act, each with the digest of the one before.

CREATE TABLE admin_log (
    number INTEGER PRIMARY KEY,
    line   TEXT NOT NULL
) STRICT;

CREATE TRIGGER admin_log_never_changes BEFORE UPDATE ON admin_log
BEGIN
    SELECT RAISE(ABORT, 'the log of acts is never changed');
END;

CREATE TRIGGER admin_log_never_goes BEFORE DELETE ON admin_log
BEGIN
    SELECT RAISE(ABORT, 'the log of acts is never deleted');
END;
