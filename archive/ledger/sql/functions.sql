-- Functions of the ledger, created anew whenever this file changes.

-- Copies each change of status, and each change by an operator, into the history.
--
-- The plan is kept per connection and is often made for a single row; without nested loops it suits thousands as well.
CREATE OR REPLACE FUNCTION record_transition() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
    INSERT INTO task_history (task_fk, from_status, to_status, attempt, actor, reason)
    SELECT a.pk, CASE WHEN b.status <> a.status THEN b.status END, a.status, a.attempt, a.actor, a.reason
    FROM before b JOIN after a USING (pk)
    WHERE b.status <> a.status OR a.actor IS DISTINCT FROM b.actor OR a.reason IS DISTINCT FROM b.reason;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION record_staging() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO task_history (task_fk, to_status, attempt, actor, reason)
    SELECT pk, status, attempt, actor, reason FROM after;
    PERFORM pg_notify('dicomq_task', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER task_transition_recorded AFTER UPDATE ON task
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION record_transition();
CREATE OR REPLACE TRIGGER task_staging_recorded AFTER INSERT ON task
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION record_staging();

-- Whether two export entities have an instance in common.
CREATE OR REPLACE FUNCTION entities_overlap(series_a text, sop_a text, series_b text, sop_b text)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT series_a IS NULL OR series_b IS NULL
        OR (series_a = series_b AND (sop_a IS NULL OR sop_b IS NULL OR sop_a = sop_b))
$$;

-- Held until the end of the transaction by whoever stages, widens or claims exports of a study to an exporter.
CREATE OR REPLACE FUNCTION lock_exports(p_exporter text, p_study text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(p_exporter || ' ' || p_study, 1))
$$;

-- Makes sure that a waiting task of the exporter covers the entity and is not due before the quiet period ends.
--
-- A finer waiting task is widened, further finer ones are absorbed. The covering row stays locked until the
-- caller commits, so that a worker claims it either before (and a new task is staged) or with the object in sight.
-- It is locked FOR SHARE where nothing changes, so that associations storing into one study do not queue up;
-- whoever changes the tasks of an exporter and study holds their advisory lock, which claims take too.
CREATE OR REPLACE FUNCTION join_export(
    x jsonb, p_study text, p_series text, p_sop text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_series text := CASE WHEN x->>'entity' = 'Study' THEN NULL ELSE p_series END;
    v_sop    text := CASE WHEN x->>'entity' = 'Instance' THEN p_sop END;
    v_wait   interval := make_interval(secs => (x->>'due_in_s')::float8);
    -- A due time a little later than asked spares rewriting the row for every object of a fast sender.
    v_ahead  interval := least(v_wait / 10, interval '25 milliseconds');
    v_due    timestamptz := clock_timestamp() + v_wait;
    v_task   record;
    v_pk     bigint;
    v_locked boolean := false;
BEGIN
    LOOP
        SELECT pk, scheduled_time,
               (series_instance_uid IS NULL OR (v_series IS NOT NULL AND (sop_instance_uid IS NULL OR v_sop IS NOT NULL)))
                   AS covers,
               count(*) OVER () > 1 AS absorbs
        INTO v_task
        FROM task
        WHERE kind = 'EXPORT' AND status = 'SCHEDULED' AND follow_up_only
          AND exporter_id = x->>'exporter_id' AND study_instance_uid = p_study
          AND entities_overlap(series_instance_uid, sop_instance_uid, v_series, v_sop)
        ORDER BY series_instance_uid NULLS FIRST, sop_instance_uid NULLS FIRST, pk
        LIMIT 1;

        IF FOUND AND v_task.covers AND NOT v_task.absorbs
           AND (v_wait <= interval '0' OR v_task.scheduled_time >= v_due)
        THEN
            PERFORM FROM task
            WHERE pk = v_task.pk AND status = 'SCHEDULED' AND (v_wait <= interval '0' OR scheduled_time >= v_due)
              AND entities_overlap(series_instance_uid, sop_instance_uid, v_series, v_sop)
            FOR SHARE;
            IF FOUND THEN RETURN; END IF;
        ELSIF NOT v_locked THEN
            PERFORM lock_exports(x->>'exporter_id', p_study);
            v_locked := true;
        ELSIF v_task.pk IS NULL THEN
            INSERT INTO task (kind, queue_name, device_name, scheduled_time, follow_up_only, local_aet, remote_aet,
                              exporter_id, study_instance_uid, series_instance_uid, sop_instance_uid, actor, reason)
            VALUES ('EXPORT', x->>'queue_name', x->>'device_name', v_due + v_ahead, true, x->>'local_aet',
                    x->>'remote_aet', x->>'exporter_id', p_study, v_series, v_sop, 'export rule', x->>'rule_name')
            RETURNING pk INTO v_pk;
            INSERT INTO export_task (task_fk, rule_name) VALUES (v_pk, x->>'rule_name');
            RETURN;
        ELSIF change_export(v_task.pk, x->>'exporter_id', p_study, v_series, v_sop, v_due + v_ahead) THEN
            RETURN;
        END IF;
    END LOOP;
END $$;

-- Widens one waiting export task, absorbs the finer ones, and moves its due time later. False: somebody was faster.
CREATE OR REPLACE FUNCTION change_export(
    p_pk bigint, p_exporter text, p_study text, p_series text, p_sop text, p_due timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM task WHERE pk = p_pk AND status = 'SCHEDULED' FOR UPDATE;
    IF NOT FOUND THEN RETURN false; END IF;
    DELETE FROM task
    WHERE pk <> p_pk AND kind = 'EXPORT' AND status = 'SCHEDULED' AND follow_up_only
      AND exporter_id = p_exporter AND study_instance_uid = p_study
      AND (p_series IS NULL OR (series_instance_uid = p_series AND p_sop IS NULL));
    UPDATE task
    SET series_instance_uid = CASE WHEN p_series IS NOT NULL THEN series_instance_uid END,
        sop_instance_uid = CASE WHEN p_series IS NOT NULL AND p_sop IS NOT NULL THEN sop_instance_uid END,
        scheduled_time = greatest(scheduled_time, p_due),
        -- A postponed task is taken back from the broker: its hint is stale, the next dispatch raises the attempt.
        dispatched_time = CASE WHEN p_due <= now() THEN dispatched_time END,
        updated_time = now()
    WHERE pk = p_pk;
    RETURN true;
END $$;

-- Takes a received object into the index and stages the exports that the rules demand for it, all or nothing.
--
-- Locks in the order patient, study, series, instance, tasks by exporter, so that concurrent calls cannot deadlock.
CREATE OR REPLACE FUNCTION store_object(a jsonb, f jsonb, r jsonb, p jsonb, intents jsonb)
RETURNS TABLE (kind text, instance_pk bigint, obsolete jsonb, staged integer, patient_conflict boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v_patient  bigint;
    v_study    study;
    v_series   series;
    v_old      record;
    v_known    boolean;
    v_first    boolean := false;
    v_rejected boolean := false;
    v_intent   jsonb;
BEGIN
    obsolete := '[]'; staged := 0; patient_conflict := false;
    SELECT s.* INTO v_study FROM study s WHERE s.study_instance_uid = a->>'study_instance_uid';
    IF NOT FOUND THEN
        v_patient := find_or_create_patient(a);
        INSERT INTO study (patient_fk, study_instance_uid, study_date, study_time, accession_number, study_id,
                           study_description, referring_physician_name)
        VALUES (v_patient, a->>'study_instance_uid', a->>'study_date', a->>'study_time', a->>'accession_number',
                a->>'study_id', a->>'study_description', a->>'referring_physician_name')
        ON CONFLICT (study_instance_uid) DO NOTHING;
        SELECT s.* INTO STRICT v_study FROM study s WHERE s.study_instance_uid = a->>'study_instance_uid';
    END IF;
    patient_conflict := EXISTS (
        SELECT FROM patient q WHERE q.pk = v_study.patient_fk
            AND (a->>'patient_id') IS NOT NULL AND q.patient_id NOT IN ('', a->>'patient_id'));
    PERFORM supplement_study(v_study, a);

    SELECT s.* INTO v_series FROM series s
    WHERE s.study_fk = v_study.pk AND s.series_instance_uid = a->>'series_instance_uid';
    IF NOT FOUND THEN
        INSERT INTO series (study_fk, series_instance_uid, modality, series_number, series_description,
                            body_part_examined, station_name, performed_procedure_step_start_date,
                            performed_procedure_step_start_time, sending_aet)
        VALUES (v_study.pk, a->>'series_instance_uid', a->>'modality', a->>'series_number', a->>'series_description',
                a->>'body_part_examined', a->>'station_name', a->>'performed_procedure_step_start_date',
                a->>'performed_procedure_step_start_time', r->>'calling_aet')
        ON CONFLICT (study_fk, series_instance_uid) DO NOTHING;
        v_first := FOUND;
        SELECT s.* INTO STRICT v_series FROM series s
        WHERE s.study_fk = v_study.pk AND s.series_instance_uid = a->>'series_instance_uid';
    END IF;

    PERFORM supplement_further(v_study, v_series, a->'further') WHERE a->'further' <> '{}';

    INSERT INTO instance (series_fk, sop_class_uid, sop_instance_uid, instance_number, content_date, content_time,
                          number_of_frames, image_rows, image_columns, retrieve_aets, availability, calling_aet,
                          called_aet, attributes)
    VALUES (v_series.pk, a->>'sop_class_uid', a->>'sop_instance_uid', a->>'instance_number', a->>'content_date',
            a->>'content_time', a->>'number_of_frames', (a->>'rows')::integer, (a->>'columns')::integer,
            ARRAY(SELECT jsonb_array_elements_text(p->'retrieve_aets')), p->>'availability', r->>'calling_aet',
            r->>'called_aet', a->'further'->'instance')
    ON CONFLICT (sop_instance_uid) DO NOTHING
    RETURNING pk INTO instance_pk;
    v_known := NOT FOUND;
    kind := 'STORED';
    IF v_known THEN
        SELECT i.pk INTO STRICT instance_pk FROM instance i
        WHERE i.sop_instance_uid = a->>'sop_instance_uid' FOR UPDATE;
        SELECT i.series_fk, i.calling_aet, bool_or(l.digest = f->>'digest') AS same_digest, count(l.pk) AS copies
        INTO STRICT v_old
        FROM instance i LEFT JOIN location l ON l.instance_fk = i.pk
        WHERE i.pk = instance_pk
        GROUP BY i.pk;
        kind := reoccurrence(v_old.copies > 0, coalesce(v_old.same_digest, false), v_old.series_fk = v_series.pk,
                             v_old.calling_aet = r->>'calling_aet', p->>'overwrite');
        -- What was rejected stays as it is until the rejection is revoked.
        IF v_old.series_fk IS NULL THEN
            v_rejected := true;
            kind := 'IGNORED';
            DELETE FROM series s WHERE v_first AND s.pk = v_series.pk;
        END IF;
    END IF;
    IF kind = 'REPLACED' THEN
        -- The path of a file that was missing is the new one's now.
        WITH deleted AS (DELETE FROM location l WHERE l.instance_fk = instance_pk RETURNING l.*),
        gone AS (
            SELECT d.* FROM deleted d
            WHERE (d.storage_id, d.storage_path) <> (f->>'storage_id', f->>'storage_path')),
        noted AS (
            INSERT INTO obsolete_file (storage_id, storage_path, transfer_syntax_uid, object_size, dataset_offset, digest)
            SELECT g.storage_id, g.storage_path, g.transfer_syntax_uid, g.object_size, g.dataset_offset, g.digest
            FROM gone g
            ON CONFLICT DO NOTHING)
        SELECT coalesce(jsonb_agg(to_jsonb(gone)), '[]') INTO obsolete FROM gone;
        UPDATE instance i
        SET version = i.version + 1, coercions = NULL, sop_class_uid = a->>'sop_class_uid', instance_number = a->>'instance_number',
            calling_aet = r->>'calling_aet', called_aet = r->>'called_aet', received_time = now()
        WHERE i.pk = instance_pk;
    END IF;
    IF kind IN ('STORED', 'REPLACED') THEN
        INSERT INTO location (instance_fk, storage_id, storage_path, transfer_syntax_uid, object_size, dataset_offset,
                              digest)
        VALUES (instance_pk, f->>'storage_id', f->>'storage_path', f->>'transfer_syntax_uid',
                (f->>'object_size')::bigint, (f->>'dataset_offset')::bigint, f->>'digest');
    END IF;
    -- An object whose copies were purged is back.
    IF kind = 'STORED' AND v_known THEN
        UPDATE instance i SET availability = p->>'availability' WHERE i.pk = instance_pk;
    END IF;
    FOR v_intent IN SELECT value FROM jsonb_array_elements(intents) ORDER BY value->>'exporter_id' LOOP
        CONTINUE WHEN v_rejected OR NOT CASE v_intent->>'reoccurred'
            WHEN 'ALWAYS' THEN true
            WHEN 'NEVER' THEN NOT v_known
            ELSE kind = 'REPLACED' OR NOT v_known END;
        IF kind IN ('DUPLICATE', 'IGNORED') THEN
            UPDATE delivery d SET current = false
            WHERE d.instance_fk = store_object.instance_pk AND d.exporter_id = v_intent->>'exporter_id' AND d.delivered;
        END IF;
        PERFORM join_export(v_intent, a->>'study_instance_uid', a->>'series_instance_uid', a->>'sop_instance_uid');
        staged := staged + 1;
    END LOOP;
    PERFORM note_arrival(a, r, instance_pk);
    IF jsonb_typeof(p->'announcements') = 'object' OR jsonb_typeof(p->'rejection') = 'object' THEN
        PERFORM note_reception(p, v_study, kind);
    END IF;
    RETURN NEXT;
END $$;

-- What a second reception of a known SOP Instance UID means under dcmOverwritePolicy.
CREATE OR REPLACE FUNCTION reoccurrence(
    has_copy boolean, same_digest boolean, same_series boolean, same_source boolean, overwrite text
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN NOT has_copy THEN 'STORED'
        WHEN same_digest AND overwrite <> 'EVEN_WITH_EQUAL_DIGEST' THEN 'DUPLICATE'
        WHEN NOT same_series THEN 'IGNORED'
        WHEN overwrite IN ('ALWAYS', 'EVEN_WITH_EQUAL_DIGEST') THEN 'REPLACED'
        WHEN overwrite = 'SAME_SOURCE' AND same_source THEN 'REPLACED'
        ELSE 'IGNORED' END
$$;

CREATE OR REPLACE FUNCTION find_or_create_patient(a jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_pk bigint;
BEGIN
    LOOP
        SELECT pk INTO v_pk FROM patient
        WHERE patient_id <> '' AND patient_id = a->>'patient_id'
          AND issuer_of_patient_id = coalesce(a->>'issuer_of_patient_id', '');
        IF FOUND THEN RETURN v_pk; END IF;
        INSERT INTO patient (patient_id, issuer_of_patient_id, patient_name, patient_birth_date, patient_sex)
        VALUES (coalesce(a->>'patient_id', ''), coalesce(a->>'issuer_of_patient_id', ''), a->>'patient_name',
                a->>'patient_birth_date', a->>'patient_sex')
        ON CONFLICT (patient_id, issuer_of_patient_id) WHERE patient_id <> '' DO NOTHING
        RETURNING pk INTO v_pk;
        IF FOUND THEN RETURN v_pk; END IF;
    END LOOP;
END $$;

-- Fills attributes that the study lacks; the row is written only when there is something to fill.
CREATE OR REPLACE FUNCTION supplement_study(s study, a jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (s.study_date IS NULL AND a->>'study_date' IS NOT NULL)
       OR (s.study_time IS NULL AND a->>'study_time' IS NOT NULL)
       OR (s.accession_number IS NULL AND a->>'accession_number' IS NOT NULL)
       OR (s.study_id IS NULL AND a->>'study_id' IS NOT NULL)
       OR (s.study_description IS NULL AND a->>'study_description' IS NOT NULL)
       OR (s.referring_physician_name IS NULL AND a->>'referring_physician_name' IS NOT NULL)
    THEN
        UPDATE study t
        SET study_date = coalesce(t.study_date, a->>'study_date'),
            study_time = coalesce(t.study_time, a->>'study_time'),
            accession_number = coalesce(t.accession_number, a->>'accession_number'),
            study_id = coalesce(t.study_id, a->>'study_id'),
            study_description = coalesce(t.study_description, a->>'study_description'),
            referring_physician_name = coalesce(t.referring_physician_name, a->>'referring_physician_name')
        WHERE t.pk = s.pk;
    END IF;
END $$;

-- Gives a task to the worker that brings the hint of its present attempt; no row: the hint is stale.
--
-- A task whose queue or destination was paused after it was handed over goes back to waiting. So does an export whose
-- entity overlaps a running one of the same exporter: two of them would send the same instances side by side.
CREATE OR REPLACE FUNCTION claim_task(p_pk bigint, p_attempt integer, p_worker text, p_lease interval)
RETURNS SETOF task LANGUAGE plpgsql AS $$
DECLARE v_task task;
BEGIN
    -- The advisory lock comes before the row's, as in join_export.
    PERFORM lock_exports(exporter_id, study_instance_uid) FROM task
    WHERE pk = p_pk AND attempt = p_attempt AND dispatched_time IS NOT NULL AND kind = 'EXPORT';
    SELECT * INTO v_task FROM task
    WHERE pk = p_pk AND attempt = p_attempt AND dispatched_time IS NOT NULL AND scheduled_time <= clock_timestamp()
    FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    IF queue_is_paused(v_task.device_name, v_task.queue_name)
       OR destination_is_paused(v_task.device_name, v_task.remote_aet)
    THEN
        UPDATE task SET dispatched_time = NULL WHERE pk = p_pk;
        RETURN;
    END IF;
    IF v_task.kind = 'EXPORT' THEN
        IF EXISTS (
            SELECT FROM task r
            WHERE r.kind = 'EXPORT' AND r.status = 'IN PROCESS' AND r.exporter_id = v_task.exporter_id
              AND r.study_instance_uid = v_task.study_instance_uid
              AND entities_overlap(r.series_instance_uid, r.sop_instance_uid,
                                   v_task.series_instance_uid, v_task.sop_instance_uid))
        THEN
            UPDATE task SET dispatched_time = NULL WHERE pk = p_pk;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    UPDATE task
    SET status = 'IN PROCESS', dispatched_time = NULL, lease_until = clock_timestamp() + p_lease,
        worker = p_worker, start_time = clock_timestamp(), end_time = NULL, updated_time = clock_timestamp(),
        actor = p_worker, reason = 'claimed'
    WHERE pk = p_pk
    RETURNING *;
END $$;

-- Ends the attempt that a worker claimed, and does what was asked for while it ran; NULL: the claim was lost.
--
-- A wish to cancel turns a retry into CANCELED; a wish to reschedule makes the task due again whatever came out.
-- An attempt that the destination answered with a success or a warning closes its circuit.
CREATE OR REPLACE FUNCTION finish_task(
    p_pk bigint, p_attempt integer, p_status text, p_failed boolean, p_delay_s float8, p_error text, p_outcome text,
    p_actor text, p_reason text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_task task;
BEGIN
    SELECT * INTO v_task FROM task WHERE pk = p_pk AND attempt = p_attempt AND status = 'IN PROCESS' FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF v_task.cancel_requested AND p_status = 'SCHEDULED FOR RETRY' THEN p_status := 'CANCELED'; END IF;
    UPDATE task SET
        status = p_status, lease_until = NULL, cancel_requested = false, reschedule_time = NULL,
        end_time = clock_timestamp(), updated_time = clock_timestamp(), failures = failures + p_failed::integer,
        scheduled_time = CASE WHEN p_status = 'SCHEDULED FOR RETRY'
                              THEN clock_timestamp() + make_interval(secs => p_delay_s) ELSE scheduled_time END,
        error_message = p_error, outcome_message = p_outcome, actor = p_actor, reason = p_reason
    WHERE pk = p_pk;
    IF v_task.reschedule_time IS NOT NULL THEN
        UPDATE task SET
            status = 'SCHEDULED', attempt = attempt + 1, first_attempt = attempt + 1, failures = 0,
            follow_up_only = false, round = round + (p_status = 'COMPLETED')::integer,
            scheduled_time = v_task.reschedule_time, start_time = NULL, end_time = NULL, error_message = NULL,
            outcome_message = NULL, worker = NULL, actor = v_task.actor, reason = 'rescheduled while running'
        WHERE pk = p_pk;
    END IF;
    IF p_status IN ('COMPLETED', 'WARNING') THEN
        UPDATE destination d SET failures = 0, tripped_time = NULL, next_probe_time = NULL, probes = 0
        WHERE d.device_name = v_task.device_name AND d.remote_aet = v_task.remote_aet AND d.failures > 0;
    END IF;
    PERFORM pg_notify('dicomq_task', '');
    RETURN p_status;
END $$;
