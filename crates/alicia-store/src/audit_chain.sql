-- Where an action came from, the request that it belongs to, and the hash that chains each row to the one before. Rows
-- from before this step have no hash; the first chained row covers them all.
ALTER TABLE audit ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN trace TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN hash BLOB;

CREATE TRIGGER audit_is_chained BEFORE INSERT ON audit
WHEN NEW.hash IS NULL OR length(NEW.hash) <> 32
BEGIN
    SELECT RAISE(ABORT, 'an audit row needs its hash: use alicia_store::audit::append');
END;
