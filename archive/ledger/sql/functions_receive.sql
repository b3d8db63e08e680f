-- The short way of an object into the index, created anew whenever this file changes.

-- Takes a new object into a series whose rows are as the caller knows them; no row: nothing was done, see store_object.
--
-- The caller has seen store_object take an object with the same attributes of patient, study and series into these
-- rows, so they lack nothing that this object could add, and they are not written. A known instance of the series whose
-- copies were all purged gets the new one. Whatever else may be the case (the instance is known otherwise, the series
-- was deleted, rejected or given to another patient) is left to store_object.
-- Locks in the same order as store_object.
CREATE OR REPLACE FUNCTION store_in_series(
    p_series bigint, p_study bigint, p_patient bigint, p_patient_id text, p_study_uid text, p_series_uid text,
    p_sop_class text, p_sop text, p_number text, p_date text, p_time text, p_frames text, p_rows integer,
    p_columns integer, p_attributes jsonb, p_retrieve_aets text[], p_availability text, p_calling text, p_called text,
    p_storage text, p_path text, p_syntax text, p_size bigint, p_offset bigint, p_digest text,
    p_intents jsonb, p_announcements jsonb, p_originator text, p_originator_id integer
) RETURNS TABLE (instance_pk bigint, staged integer, patient_conflict boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_study  study;
    v_intent jsonb;
    v_known  boolean;
BEGIN
    SELECT p_patient_id IS NOT NULL AND q.patient_id NOT IN ('', p_patient_id) INTO patient_conflict
    FROM series s JOIN study t ON t.pk = s.study_fk JOIN patient q ON q.pk = t.patient_fk
    WHERE s.pk = p_series AND s.study_fk = p_study AND t.patient_fk = p_patient;
    IF NOT FOUND THEN RETURN; END IF;
    INSERT INTO instance (series_fk, sop_class_uid, sop_instance_uid, instance_number, content_date, content_time,
                          number_of_frames, image_rows, image_columns, retrieve_aets, availability, calling_aet,
                          called_aet, attributes)
    VALUES (p_series, p_sop_class, p_sop, p_number, p_date, p_time, p_frames, p_rows, p_columns, p_retrieve_aets,
            p_availability, p_calling, p_called, p_attributes)
    ON CONFLICT (sop_instance_uid) DO NOTHING
    RETURNING pk INTO instance_pk;
    v_known := NOT FOUND;
    IF v_known THEN
        -- A rule that exports what was seen before has more to look at.
        IF p_intents @? '$[*] ? (@.reoccurred == "ALWAYS")' THEN RETURN; END IF;
        instance_pk := purged_instance(p_series, p_sop, p_availability);
        IF instance_pk IS NULL THEN RETURN; END IF;
    END IF;
    INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size, dataset_offset, digest)
    VALUES (instance_pk, p_storage, p_path, p_syntax, p_size, p_offset, p_digest);
    staged := 0;
    FOR v_intent IN SELECT value FROM jsonb_array_elements(p_intents) WHERE NOT v_known LOOP
        IF NOT hold_export(v_intent, p_study_uid, p_series_uid) THEN
            PERFORM join_export(v_intent, p_study_uid, p_series_uid, p_sop);
        END IF;
        staged := staged + 1;
    END LOOP;
    IF EXISTS (SELECT FROM move_forward WHERE ended_time IS NULL) THEN
        PERFORM note_arrival(
            jsonb_build_object('study_instance_uid', p_study_uid, 'series_instance_uid', p_series_uid,
                               'sop_instance_uid', p_sop, 'patient_id', p_patient_id),
            jsonb_build_object('calling_aet', p_calling, 'move_originator_aet', p_originator,
                               'move_originator_message_id', p_originator_id), instance_pk);
    END IF;
    IF p_announcements IS NOT NULL THEN
        SELECT t.* INTO STRICT v_study FROM study t WHERE t.pk = p_study;
        PERFORM note_ian_triggers(p_announcements, v_study);
    END IF;
    RETURN NEXT;
END $$;

-- The instance of a series whose copies were all purged, available again; NULL when it is not one of those.
CREATE OR REPLACE FUNCTION purged_instance(p_series bigint, p_sop text, p_availability text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_pk bigint;
BEGIN
    -- Two statements: the second one sees what somebody else has committed while the first one waited.
    SELECT i.pk INTO v_pk FROM instance i WHERE i.sop_instance_uid = p_sop AND i.series_fk = p_series FOR UPDATE;
    UPDATE instance i SET availability = p_availability
    WHERE i.pk = v_pk AND NOT EXISTS (SELECT FROM location l WHERE l.instance_fk = i.pk)
    RETURNING i.pk INTO v_pk;
    RETURN v_pk;
END $$;

-- Whether a waiting task of the exporter covers the entity and is due late enough; then no worker claims it before the
-- caller's transaction ends. False: join_export has to stage, widen or postpone one.
--
-- Claims take the advisory lock for themselves; here it is shared and the task's row stays as it is, which would else
-- be written for every object. Whoever cancels, reschedules or deletes the task at the same time comes after this one.
-- The time is that of the transaction: of several objects of a series in it, none may find the task due too early after
-- another one holds the lock shared. Two transactions that then want it for themselves would wait for each other.
CREATE OR REPLACE FUNCTION hold_export(x jsonb, p_study text, p_series text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_series text := CASE WHEN x->>'entity' = 'Study' THEN NULL ELSE p_series END;
    v_wait   interval := make_interval(secs => (x->>'due_in_s')::float8);
    v_due    timestamptz := CASE WHEN v_wait > interval '0' THEN now() + v_wait ELSE '-infinity' END;
BEGIN
    -- A rule for single instances has a task for nearly every object.
    IF x->>'entity' = 'Instance' OR NOT export_is_covered(x->>'exporter_id', p_study, v_series, v_due) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtextextended((x->>'exporter_id') || ' ' || p_study, 1));
    IF export_is_covered(x->>'exporter_id', p_study, v_series, v_due) THEN RETURN true; END IF;
    -- Two that hold the lock shared and both want it for themselves would wait for each other.
    RAISE EXCEPTION 'the task of exporter % was claimed or changed', x->>'exporter_id'
        USING ERRCODE = 'serialization_failure';
END $$;

-- Whether one waiting task alone covers a study or a series of it, and is not due before `p_due`.
CREATE OR REPLACE FUNCTION export_is_covered(p_exporter text, p_study text, p_series text, p_due timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT count(*) = 1
           AND bool_and(scheduled_time >= p_due
                        AND (series_instance_uid IS NULL OR (p_series IS NOT NULL AND sop_instance_uid IS NULL)))
        FROM task
        WHERE kind = 'EXPORT' AND status = 'SCHEDULED' AND follow_up_only
          AND exporter_id = p_exporter AND study_instance_uid = p_study
          AND entities_overlap(series_instance_uid, sop_instance_uid, p_series, NULL));
END $$;
