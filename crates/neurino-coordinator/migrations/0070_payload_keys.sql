-- What people wrote and were answered is sealed with a key of its job. That key lies here, wrapped with a
-- key that does not; when it goes, request, answer and small copy are lost for good.

ALTER TABLE job ADD COLUMN payload_key BLOB;
-- In which hour since the Unix epoch it was wrapped.
ALTER TABLE job ADD COLUMN payload_hour INTEGER;

CREATE INDEX job_payload_hour ON job (payload_hour) WHERE payload_key IS NOT NULL;
-- Jobs of former versions, which are sealed when the books are opened.
CREATE INDEX job_payload_plain ON job (id) WHERE payload_key IS NULL AND spec IS NOT NULL;
-- Payloads of jobs whose audits were disputed are kept longer.
CREATE INDEX audit_disputed ON audit (changed_at_ms) WHERE third IS NOT NULL;
