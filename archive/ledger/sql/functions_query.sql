-- Functions for queries, created anew whenever this file changes.

-- Keeps the further attributes of a received object; what an entity has already stays as it is.
CREATE OR REPLACE FUNCTION supplement_further(v_study study, v_series series, f jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF f ? 'patient' THEN
        UPDATE patient SET attributes = (f->'patient') || coalesce(attributes, '{}')
        WHERE pk = v_study.patient_fk AND NOT coalesce(attributes, '{}') ?& further_keys(f->'patient');
    END IF;
    IF f ? 'study' AND NOT coalesce(v_study.attributes, '{}') ?& further_keys(f->'study') THEN
        UPDATE study SET attributes = (f->'study') || coalesce(attributes, '{}') WHERE pk = v_study.pk;
    END IF;
    IF f ? 'series' AND NOT coalesce(v_series.attributes, '{}') ?& further_keys(f->'series') THEN
        UPDATE series SET attributes = (f->'series') || coalesce(attributes, '{}') WHERE pk = v_series.pk;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION further_keys(f jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT jsonb_object_keys(f));
