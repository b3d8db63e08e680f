-- What queries and coercion need beyond the index of the first release.

-- Further attributes in the DICOM JSON model (PS3.18 §F); NULL when there are none.
ALTER TABLE patient  ADD COLUMN attributes jsonb;
ALTER TABLE study    ADD COLUMN attributes jsonb;
ALTER TABLE series   ADD COLUMN attributes jsonb;
ALTER TABLE instance ADD COLUMN attributes jsonb;

-- How an object was coerced when it was received: steps that are applied to its file whenever it is sent.
ALTER TABLE instance ADD COLUMN coercions jsonb;

-- One of the three component groups of a person name, in lower case (PS3.5 §6.2.1.1).
CREATE FUNCTION name_group(name text, number integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    RETURN lower(split_part(name, '=', number));

CREATE INDEX patient_name_alphabetic ON patient (name_group(patient_name, 1) text_pattern_ops);
CREATE INDEX patient_name_ideographic ON patient (name_group(patient_name, 2) text_pattern_ops)
    WHERE name_group(patient_name, 2) <> '';
CREATE INDEX patient_name_phonetic ON patient (name_group(patient_name, 3) text_pattern_ops)
    WHERE name_group(patient_name, 3) <> '';
CREATE INDEX patient_id_pattern ON patient (patient_id text_pattern_ops);
CREATE INDEX patient_birth_date ON patient (patient_birth_date COLLATE "C");
CREATE INDEX study_date ON study (study_date COLLATE "C");
CREATE INDEX study_accession_number ON study (accession_number text_pattern_ops);
CREATE INDEX study_id ON study (study_id text_pattern_ops);
CREATE INDEX study_description ON study (lower(study_description) text_pattern_ops);
CREATE INDEX study_attributes ON study USING gin (attributes jsonb_path_ops) WHERE attributes IS NOT NULL;
CREATE INDEX series_attributes ON series USING gin (attributes jsonb_path_ops) WHERE attributes IS NOT NULL;

-- Patterns that begin with a wildcard need trigrams, which come with PostgreSQL's contributed modules only; without
-- them such a query reads the whole table.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') THEN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
        CREATE INDEX patient_name_trigram ON patient USING gin (name_group(patient_name, 1) gin_trgm_ops);
        CREATE INDEX study_description_trigram ON study USING gin (lower(study_description) gin_trgm_ops);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;

-- What leading archives answered (the truth that all processes share).
CREATE TABLE leading_answer (
    leading_aet        text NOT NULL,
    study_instance_uid text NOT NULL,
    -- Attributes of the match; '{}' when the archive knows no such study; NULL when it could not be asked.
    attributes         jsonb,
    error_message      text,
    answered_time      timestamptz NOT NULL DEFAULT now(),
    used_time          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (leading_aet, study_instance_uid),
    CHECK ((attributes IS NULL) = (error_message IS NOT NULL))
);
CREATE INDEX leading_answer_used ON leading_answer (used_time);

-- Single flight: one waiting or running query per leading archive and study.
CREATE UNIQUE INDEX task_leading_query ON task (remote_aet, study_instance_uid)
    WHERE kind = 'LEADING_CFIND' AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS');

-- Received objects that still have to be coerced with the answer of a leading archive.
CREATE TABLE coercion_pending (
    instance_fk        bigint NOT NULL REFERENCES instance ON DELETE CASCADE,
    leading_aet        text NOT NULL,
    study_instance_uid text NOT NULL,
    policy             text NOT NULL,
    PRIMARY KEY (instance_fk, leading_aet)
);
CREATE INDEX coercion_pending_study ON coercion_pending (leading_aet, study_instance_uid);
