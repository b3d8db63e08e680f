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

-- Gives a study the attributes that a coercion found: those in `a`, by column; NULL leaves a column as it is.
CREATE OR REPLACE FUNCTION reindex_study(p_study text, a jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_study   study;
    v_patient patient;
BEGIN
    SELECT * INTO v_study FROM study WHERE study_instance_uid = p_study FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT * INTO STRICT v_patient FROM patient WHERE pk = v_study.patient_fk;
    IF coalesce(a->>'patient_id', v_patient.patient_id) <> v_patient.patient_id
       OR coalesce(a->>'issuer_of_patient_id', v_patient.issuer_of_patient_id) <> v_patient.issuer_of_patient_id
    THEN
        v_study.patient_fk := find_or_create_patient(
            jsonb_strip_nulls(to_jsonb(v_patient)) || jsonb_strip_nulls(a));
    END IF;
    UPDATE patient
    SET patient_name = coalesce(a->>'patient_name', patient_name),
        patient_birth_date = coalesce(a->>'patient_birth_date', patient_birth_date),
        patient_sex = coalesce(a->>'patient_sex', patient_sex)
    WHERE pk = v_study.patient_fk;
    UPDATE study
    SET patient_fk = v_study.patient_fk,
        study_date = coalesce(a->>'study_date', study_date),
        study_time = coalesce(a->>'study_time', study_time),
        accession_number = coalesce(a->>'accession_number', accession_number),
        study_id = coalesce(a->>'study_id', study_id),
        study_description = coalesce(a->>'study_description', study_description),
        referring_physician_name = coalesce(a->>'referring_physician_name', referring_physician_name)
    WHERE pk = v_study.pk;
END $$;
