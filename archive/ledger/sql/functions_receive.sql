-- The short way of an object into the index, created anew whenever this file changes.
--
-- Every object comes this way. Beginning a statement is what costs most here, reading and writing rows costs little:
-- so the statements are few, and what needs none (reading parameters, taking advisory locks) is an assignment.

-- Takes a new object into a series whose rows are as the caller knows them, and returns the key of its instance and how
-- many exports it staged or joined; NULL: nothing was done, see store_object.
--
-- The caller has seen store_object take an object with the same attributes of patient, study and series into these
-- rows, so they lack nothing that this object could add, and they are not written. A known instance of the series whose
-- copies were all purged gets the new one. Whatever else may be the case (the instance is known otherwise, the series
-- was deleted, rejected or given to another patient) is left to store_object.
-- Locks in the same order as store_object.
CREATE OR REPLACE FUNCTION index_in_series(
    p_series bigint, p_study bigint, p_patient bigint, p_patient_id text, p_study_uid text, p_series_uid text,
    p_sop_class text, p_sop text, p_number text, p_date text, p_time text, p_frames text, p_rows integer,
    p_columns integer, p_attributes jsonb, p_retrieve_aets text[], p_availability text, p_calling text, p_called text,
    p_storage text, p_path text, p_syntax text, p_size bigint, p_offset bigint, p_digest text,
    p_intents jsonb, p_announcements jsonb, p_originator text, p_originator_id integer
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_instance bigint;
    v_staged   integer := 0;
    v_study    study;
    v_intent   jsonb;
    v_wait     float8;
    v_lock     bigint;
    v_done     boolean;
BEGIN
    PERFORM FROM series s JOIN study t ON t.pk = s.study_fk
    WHERE s.pk = p_series AND s.study_fk = p_study AND t.patient_fk = p_patient;
    IF NOT FOUND THEN RETURN NULL; END IF;
    INSERT INTO instance (series_fk, sop_class_uid, sop_instance_uid, instance_number, content_date, content_time,
                          number_of_frames, image_rows, image_columns, retrieve_aets, availability, calling_aet,
                          called_aet, attributes)
    VALUES (p_series, p_sop_class, p_sop, p_number, p_date, p_time, p_frames, p_rows, p_columns, p_retrieve_aets,
            p_availability, p_calling, p_called, p_attributes)
    ON CONFLICT (sop_instance_uid) DO NOTHING
    RETURNING pk INTO v_instance;
    IF FOUND THEN
        v_staged := jsonb_array_length(p_intents);
    ELSE
        -- A rule that exports what was seen before has more to look at.
        IF p_intents @? '$[*] ? (@.reoccurred == "ALWAYS")' THEN RETURN NULL; END IF;
        v_instance := purged_instance(p_series, p_sop, p_availability);
        IF v_instance IS NULL THEN RETURN NULL; END IF;
    END IF;
    INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size, dataset_offset, digest)
    VALUES (v_instance, p_storage, p_path, p_syntax, p_size, p_offset, p_digest);
    -- An export is joined by holding the advisory lock of its exporter and study shared: then no worker claims the
    -- waiting task that covers the object before this transaction ends, and the task's row is not written for every
    -- object. Claims take the lock for themselves; whoever cancels, reschedules or deletes the task at the same time
    -- comes after this one. Where no task covers, join_export stages, widens or postpones one.
    -- Whether one does is only known with the lock in hand, but transactions that hold it shared and then want it for
    -- themselves would wait for each other. So it is the session's until that is known. (An error in between leaves it
    -- with the session, which is then closed.)
    -- The time is that of the transaction: of several objects of a series in it, none may find the task due too early
    -- after another one joined it.
    FOR n IN 0 .. v_staged - 1 LOOP
        v_intent := p_intents -> n;
        v_wait := v_intent->>'due_in_s';
        v_lock := hashtextextended((v_intent->>'exporter_id') || ' ' || p_study_uid, 1);
        v_done := pg_advisory_lock_shared(v_lock) IS NOT NULL;
        PERFORM FROM task
        WHERE kind = 'EXPORT' AND status = 'SCHEDULED' AND follow_up_only
          AND exporter_id = v_intent->>'exporter_id' AND study_instance_uid = p_study_uid
          AND scheduled_time >= CASE WHEN v_wait > 0 THEN now() + make_interval(secs => v_wait) ELSE '-infinity' END
          AND (series_instance_uid IS NULL
               OR (v_intent->>'entity' = 'Series' AND series_instance_uid = p_series_uid AND sop_instance_uid IS NULL));
        IF FOUND THEN
            v_done := pg_advisory_xact_lock_shared(v_lock) IS NOT NULL;
            v_done := pg_advisory_unlock_shared(v_lock);
        ELSE
            v_done := pg_advisory_unlock_shared(v_lock);
            PERFORM join_export(v_intent, p_study_uid, p_series_uid, p_sop);
        END IF;
    END LOOP;
    -- Asked last: who arrives after a forward began is to be noted.
    IF EXISTS (SELECT FROM move_forward WHERE ended_time IS NULL) THEN
        PERFORM note_arrival(
            jsonb_build_object('study_instance_uid', p_study_uid, 'series_instance_uid', p_series_uid,
                               'sop_instance_uid', p_sop, 'patient_id', p_patient_id),
            jsonb_build_object('calling_aet', p_calling, 'move_originator_aet', p_originator,
                               'move_originator_message_id', p_originator_id), v_instance);
    END IF;
    IF p_announcements IS NOT NULL THEN
        SELECT t.* INTO STRICT v_study FROM study t WHERE t.pk = p_study;
        PERFORM note_ian_triggers(p_announcements, v_study);
    END IF;
    RETURN ARRAY[v_instance, v_staged];
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

