-- Trigram indexes for patterns that begin with a wildcard, where PostgreSQL has pg_trgm (a contributed module).
--
-- A name is looked for in its three groups; only when each has such an index is any of them used. May be called again
-- by whoever installs the extension later.
CREATE FUNCTION index_trigrams() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN RETURN false; END IF;
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX IF NOT EXISTS patient_name_trigram ON patient USING gin (name_group(patient_name, 1) gin_trgm_ops);
    CREATE INDEX IF NOT EXISTS patient_name_ideographic_trigram
        ON patient USING gin (name_group(patient_name, 2) gin_trgm_ops) WHERE name_group(patient_name, 2) <> '';
    CREATE INDEX IF NOT EXISTS patient_name_phonetic_trigram
        ON patient USING gin (name_group(patient_name, 3) gin_trgm_ops) WHERE name_group(patient_name, 3) <> '';
    CREATE INDEX IF NOT EXISTS study_description_trigram ON study USING gin (lower(study_description) gin_trgm_ops);
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN false;
END $$;

SELECT index_trigrams();
