-- As in `migrations/`: entries of an epoch are written before its file. Until that is there they are a draft,
-- which counts for nothing and may be begun anew.

ALTER TABLE epoch_entry DROP CONSTRAINT epoch_entry_epoch_fkey;

CREATE FUNCTION refuse_published() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT 1 FROM epoch_file WHERE epoch = NEW.epoch) THEN
            RAISE EXCEPTION 'a published epoch is never changed';
        END IF;
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT 1 FROM epoch_file WHERE epoch = OLD.epoch) THEN
        RAISE EXCEPTION 'a published epoch is never deleted';
    END IF;
    RETURN OLD;
END
$$;

DROP TRIGGER epoch_entry_never_goes ON epoch_entry;
CREATE TRIGGER epoch_entry_never_goes BEFORE DELETE ON epoch_entry FOR EACH ROW
EXECUTE FUNCTION refuse_published();
CREATE TRIGGER epoch_entry_comes_before BEFORE INSERT ON epoch_entry FOR EACH ROW
EXECUTE FUNCTION refuse_published();

-- Who makes an epoch right now. One row at most.
CREATE TABLE epoch_draft (
    one           BIGINT PRIMARY KEY CHECK (one = 1),
    -- Drawn for each attempt: whoever is not named writes no more.
    drafter       TEXT COLLATE "C" NOT NULL,
    -- 1 if it is the one who holds the books.
    is_router     BIGINT NOT NULL CHECK (is_router IN (0, 1)),
    epoch         BIGINT NOT NULL,
    -- When it took its last step.
    touched_at_ms BIGINT NOT NULL
);

-- Movements are read page by page, by time and lease.
CREATE INDEX clawback_at ON clawback (at_ms, lease);
CREATE INDEX clawback_restored ON clawback (restored_at_ms, lease) WHERE restored_at_ms IS NOT NULL;
