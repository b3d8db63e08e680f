-- Functions for retrieves, created anew whenever this file changes.

-- A JSON array as an array of texts.
CREATE OR REPLACE FUNCTION texts(j jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY(SELECT jsonb_array_elements_text(j))
$$;

-- Tells the SCP that waits for a retrieve about each change of its task's status.
CREATE OR REPLACE FUNCTION notify_retrieve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('dicomq_retrieve', NEW.pk::text);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER retrieve_status_notified AFTER UPDATE OF status ON task
    FOR EACH ROW WHEN (NEW.kind = 'RETRIEVE' AND NEW.status <> OLD.status) EXECUTE FUNCTION notify_retrieve();

-- Instances that the keys of an identifier cover. Empty keys restrict nothing; one of them is always given.
CREATE OR REPLACE FUNCTION retrieve_scope(
    p_studies text[], p_series text[], p_sops text[], p_patient text, p_issuer text
) RETURNS TABLE (instance_pk bigint, study_instance_uid text, series_instance_uid text, sending_aet text)
LANGUAGE sql STABLE AS $$
    SELECT i.pk, t.study_instance_uid, s.series_instance_uid, s.sending_aet
    FROM patient p JOIN study t ON t.patient_fk = p.pk JOIN series s ON s.study_fk = t.pk
         JOIN instance i ON i.series_fk = s.pk
    WHERE (p_studies = '{}' OR t.study_instance_uid = ANY (p_studies))
      AND (p_series = '{}' OR s.series_instance_uid = ANY (p_series))
      AND (p_sops = '{}' OR i.sop_instance_uid = ANY (p_sops))
      AND (p_patient IS NULL OR p.patient_id = p_patient)
      AND (p_issuer IS NULL OR p.issuer_of_patient_id = p_issuer)
$$;

-- Whether an open forwarded C-MOVE asks for the object with attributes `a`.
CREATE OR REPLACE FUNCTION forward_covers(f move_forward, a jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (f.study_instance_uids = '{}' OR a->>'study_instance_uid' = ANY (f.study_instance_uids))
       AND (f.series_instance_uids = '{}' OR a->>'series_instance_uid' = ANY (f.series_instance_uids))
       AND (f.sop_instance_uids = '{}' OR a->>'sop_instance_uid' = ANY (f.sop_instance_uids))
       AND (f.retrieve_level <> 'PATIENT' OR a->>'patient_id' = f.patient_id)
$$;

-- Notes for which forwarded C-MOVE an object arrived; called in the transaction that stores it, also for a duplicate.
--
-- Move Originator AE Title and Message ID decide; an archive that does not send them is known by its calling AE title
-- (dcmCStoreSCUOfCMoveSCP); failing that, whoever waits for such an object gets it.
CREATE OR REPLACE FUNCTION note_arrival(a jsonb, r jsonb, p_instance bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_forward bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM move_forward WHERE ended_time IS NULL) THEN RETURN; END IF;
    FOR v_forward IN
        WITH waiting AS (
            SELECT f.pk, CASE
                WHEN f.calling_aet = r->>'move_originator_aet'
                     AND f.message_id = (r->>'move_originator_message_id')::integer THEN 1
                WHEN r->>'calling_aet' = ANY (f.store_scu_aets) THEN 2
                ELSE 3 END AS rank
            FROM move_forward f WHERE f.ended_time IS NULL AND forward_covers(f, a)),
        closest AS (SELECT pk FROM waiting WHERE rank = (SELECT min(rank) FROM waiting))
        INSERT INTO move_arrival (forward_fk, instance_fk) SELECT pk, p_instance FROM closest
        ON CONFLICT DO NOTHING
        RETURNING forward_fk
    LOOP
        PERFORM pg_notify('dicomq_arrival', v_forward::text);
    END LOOP;
END $$;

-- Whether the worker that holds the association of a forwarded C-MOVE is alive.
CREATE OR REPLACE FUNCTION forward_is_alive(f move_forward) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM task t WHERE t.pk = f.task_fk AND t.attempt = f.attempt AND t.status = 'IN PROCESS')
$$;

-- Whether what a forwarded C-MOVE brings includes what the identifier `w` asks for.
CREATE OR REPLACE FUNCTION forward_includes(f move_forward, w jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE f.retrieve_level
        WHEN 'PATIENT' THEN w->>'retrieve_level' = 'PATIENT' AND w->>'patient_id' = f.patient_id
        ELSE w->>'retrieve_level' <> 'PATIENT'
             AND texts(w->'study_instance_uids') <@ f.study_instance_uids
             AND (f.series_instance_uids = '{}' OR (texts(w->'series_instance_uids') <> '{}'
                  AND texts(w->'series_instance_uids') <@ f.series_instance_uids))
             AND (f.sop_instance_uids = '{}' OR (texts(w->'sop_instance_uids') <> '{}'
                  AND texts(w->'sop_instance_uids') <@ f.sop_instance_uids))
             AND (f.study_instance_uids <> '{}' AND texts(w->'study_instance_uids') <> '{}'
                  OR f.entity_key = w->>'entity_key')
        END
$$;

-- Registers a C-MOVE that is about to be forwarded, or joins one under way that brings the same objects.
CREATE OR REPLACE FUNCTION register_forward(p_task bigint, p_attempt integer, w jsonb)
RETURNS TABLE (forward_pk bigint, move_message_id integer, is_leader boolean) LANGUAGE plpgsql AS $$
DECLARE v_open move_forward;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(w->>'external_aet', 2));
    FOR v_open IN
        SELECT * FROM move_forward f
        WHERE f.ended_time IS NULL AND f.external_aet = w->>'external_aet' AND f.through_aet = w->>'through_aet'
        ORDER BY f.pk
    LOOP
        IF NOT forward_is_alive(v_open) OR (v_open.task_fk = p_task AND v_open.attempt < p_attempt) THEN
            UPDATE move_forward SET ended_time = clock_timestamp() WHERE pk = v_open.pk;
            PERFORM pg_notify('dicomq_arrival', v_open.pk::text);
        ELSIF v_open.task_fk <> p_task AND forward_includes(v_open, w) THEN
            forward_pk := v_open.pk; move_message_id := v_open.message_id; is_leader := false;
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
    LOOP
        move_message_id := nextval('move_message_id');
        EXIT WHEN NOT EXISTS (
            SELECT FROM move_forward f WHERE f.ended_time IS NULL AND f.calling_aet = w->>'calling_aet'
                AND f.message_id = move_message_id);
    END LOOP;
    INSERT INTO move_forward (task_fk, attempt, external_aet, through_aet, calling_aet, message_id, store_scu_aets,
                              retrieve_level, patient_id, entity_key, study_instance_uids, series_instance_uids,
                              sop_instance_uids)
    VALUES (p_task, p_attempt, w->>'external_aet', w->>'through_aet', w->>'calling_aet', move_message_id,
            texts(w->'store_scu_aets'), w->>'retrieve_level', w->>'patient_id', w->>'entity_key',
            texts(w->'study_instance_uids'), texts(w->'series_instance_uids'), texts(w->'sop_instance_uids'))
    RETURNING pk INTO forward_pk;
    is_leader := true;
    RETURN NEXT;
END $$;

-- Asks for a retrieve from another archive, unless one for the same is waiting or under way; an earlier time is taken over.
CREATE OR REPLACE FUNCTION stage_requested_retrieve(x jsonb) RETURNS TABLE (task_pk bigint, is_new boolean)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(' ', x->>'remote_aet', x->>'destination_aet', x->>'entity_key'), 3));
    SELECT t.pk INTO task_pk
    FROM task t JOIN retrieve_task r ON r.task_fk = t.pk
    WHERE t.kind = 'RETRIEVE' AND t.status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS')
      AND t.remote_aet = x->>'remote_aet' AND r.destination_aet = x->>'destination_aet' AND r.role = 'SCU'
      AND t.study_instance_uid = x->>'study_instance_uid'
      AND r.retrieve_level = x->>'retrieve_level'
      AND r.study_instance_uids = texts(x->'study_instance_uids')
      AND r.series_instance_uids = texts(x->'series_instance_uids')
      AND r.sop_instance_uids = texts(x->'sop_instance_uids')
    ORDER BY t.pk LIMIT 1;
    is_new := NOT FOUND;
    IF is_new THEN
        task_pk := stage_retrieve(x);
    ELSE
        UPDATE task SET scheduled_time = clock_timestamp() + make_interval(secs => (x->>'due_in_s')::float8)
        WHERE pk = task_pk AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
          AND scheduled_time > clock_timestamp() + make_interval(secs => (x->>'due_in_s')::float8);
        IF FOUND THEN PERFORM pg_notify('dicomq_task', ''); END IF;
    END IF;
    RETURN NEXT;
END $$;

CREATE OR REPLACE FUNCTION stage_retrieve(x jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_pk bigint;
BEGIN
    INSERT INTO task (kind, queue_name, device_name, scheduled_time, batch_id, local_aet, remote_aet,
                      study_instance_uid, series_instance_uid, sop_instance_uid, actor, reason)
    VALUES ('RETRIEVE', x->>'queue_name', x->>'device_name',
            clock_timestamp() + make_interval(secs => (x->>'due_in_s')::float8), x->>'batch_id', x->>'local_aet',
            x->>'remote_aet', x->>'study_instance_uid', x->>'series_instance_uid',
            CASE WHEN x->>'series_instance_uid' IS NOT NULL THEN x->>'sop_instance_uid' END, x->>'actor', x->>'reason')
    RETURNING pk INTO v_pk;
    INSERT INTO retrieve_task (task_fk, role, retrieve_level, patient_id, issuer_of_patient_id, study_instance_uids,
                               series_instance_uids, sop_instance_uids, destination_aet, move_originator_aet,
                               move_originator_message_id, priority, remaining)
    VALUES (v_pk, x->>'role', x->>'retrieve_level', x->>'patient_id', x->>'issuer_of_patient_id',
            texts(x->'study_instance_uids'), texts(x->'series_instance_uids'), texts(x->'sop_instance_uids'),
            x->>'destination_aet', x->>'move_originator_aet', (x->>'move_originator_message_id')::integer,
            (x->>'priority')::integer, (x->>'remaining')::integer);
    RETURN v_pk;
END $$;

-- Drops the local copies of a study's objects that can be had elsewhere; see archive.ledger.purging.
CREATE OR REPLACE FUNCTION purge_study(p_study text, p_external text, p_force boolean)
RETURNS TABLE (refusal text, purged integer, files jsonb) LANGUAGE plpgsql AS $$
DECLARE
    v_busy integer;
    v_lost integer;
BEGIN
    purged := 0; files := '[]';
    PERFORM FROM instance i JOIN series s ON s.pk = i.series_fk JOIN study t ON t.pk = s.study_fk
    WHERE t.study_instance_uid = p_study ORDER BY i.pk FOR UPDATE OF i;
    IF NOT FOUND THEN
        refusal := 'the archive does not know this study';
        RETURN NEXT; RETURN;
    END IF;
    SELECT count(*) INTO v_busy FROM task
    WHERE study_instance_uid = p_study AND kind IN ('EXPORT', 'RETRIEVE')
      AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS');
    SELECT count(*) INTO v_lost
    FROM instance i JOIN series s ON s.pk = i.series_fk JOIN study t ON t.pk = s.study_fk
    WHERE t.study_instance_uid = p_study AND i.external_retrieve_aet IS NULL AND p_external IS NULL
      AND EXISTS (SELECT FROM location l WHERE l.instance_fk = i.pk);
    refusal := CASE
        WHEN p_force THEN NULL
        WHEN v_lost > 0 THEN format('%s of its objects are not known to be held by another archive; name the one that'
                ' holds them (--external-aet), or lose them (--force)', v_lost)
        WHEN v_busy > 0 THEN format('%s export or retrieve tasks of it are not done yet; wait for them or cancel them', v_busy) END;
    IF refusal IS NOT NULL THEN RETURN NEXT; RETURN; END IF;
    WITH gone AS (
        DELETE FROM location l USING instance i, series s, study t
        WHERE l.instance_fk = i.pk AND s.pk = i.series_fk AND t.pk = s.study_fk AND t.study_instance_uid = p_study
        RETURNING l.*),
    emptied AS (
        UPDATE instance i
        SET external_retrieve_aet = coalesce(p_external, i.external_retrieve_aet),
            availability = CASE WHEN coalesce(p_external, i.external_retrieve_aet) IS NULL THEN 'UNAVAILABLE'
                                ELSE 'NEARLINE' END
        WHERE i.pk IN (SELECT instance_fk FROM gone)
        RETURNING i.pk)
    SELECT (SELECT count(*) FROM emptied), coalesce(jsonb_agg(to_jsonb(gone)), '[]') INTO purged, files FROM gone;
    RETURN NEXT;
END $$;
