-- What was decided about the network, one line of JSON an act, each with the digest of the one before.

CREATE TABLE admin_log (
    number BIGINT PRIMARY KEY,
    line   TEXT NOT NULL
);

CREATE TRIGGER admin_log_never_changes BEFORE UPDATE ON admin_log FOR EACH ROW
EXECUTE FUNCTION refuse('the log of acts is never changed');
CREATE TRIGGER admin_log_never_goes BEFORE DELETE ON admin_log FOR EACH ROW
EXECUTE FUNCTION refuse('the log of acts is never deleted');
CREATE TRIGGER admin_log_never_emptied BEFORE TRUNCATE ON admin_log
EXECUTE FUNCTION refuse('the log of acts is never deleted');
