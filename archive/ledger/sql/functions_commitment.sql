-- Functions for commitment, triggers of notifications and rejection, created anew whenever this file changes.

-- Whether a commitment SCP keeps this version of an instance: what it has said last holds.
CREATE OR REPLACE FUNCTION is_committed(p_instance bigint, p_version integer, p_remote_aet text)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT o.committed FROM commitment_instance o JOIN commitment c ON c.pk = o.commitment_fk
        WHERE o.instance_fk = p_instance AND o.instance_version = p_version AND o.committed IS NOT NULL
          AND c.remote_aet = p_remote_aet
        ORDER BY c.reported_time DESC, c.pk DESC LIMIT 1), false)
$$;

-- Enters a report into the request that it answers; no row: no such request was ever sent.
--
-- The latest report holds. One lock per exporter and study: of two reports that complete a study together, one has to
-- see the other's, so that what waits for the commitment of all of it follows once.
CREATE OR REPLACE FUNCTION enter_commitment_report(
    p_transaction text, p_committed text[], p_aets text[], p_failed text[], p_reasons integer[], p_may_pass integer[]
) RETURNS TABLE (request commitment, newly_committed integer, unknown integer, late boolean)
LANGUAGE plpgsql AS $$
DECLARE
    v     commitment;
    v_hit integer;
BEGIN
    SELECT * INTO v FROM commitment WHERE transaction_uid = p_transaction;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(coalesce(v.exporter_id, '') || ' ' || v.study_instance_uid, 2));
    SELECT * INTO v FROM commitment WHERE pk = v.pk FOR UPDATE;
    late := v.escalated_time IS NOT NULL OR v.status <> 'PENDING';

    SELECT count(*) INTO newly_committed
    FROM commitment_instance o JOIN unnest(p_committed) r (uid) ON r.uid = o.sop_instance_uid
    WHERE o.commitment_fk = v.pk AND o.committed IS NOT TRUE;
    UPDATE instance i SET external_retrieve_aet = coalesce(v.retrieve_aet, r.aet, v.remote_aet)
    FROM commitment_instance o JOIN unnest(p_committed, p_aets) r (uid, aet) ON r.uid = o.sop_instance_uid
    WHERE o.commitment_fk = v.pk AND i.pk = o.instance_fk AND i.version = o.instance_version
      AND i.external_retrieve_aet IS DISTINCT FROM coalesce(v.retrieve_aet, r.aet, v.remote_aet);
    UPDATE commitment_instance o SET committed = true, failure_reason = NULL
    FROM unnest(p_committed) r (uid)
    WHERE o.commitment_fk = v.pk AND o.sop_instance_uid = r.uid;
    GET DIAGNOSTICS v_hit = ROW_COUNT;
    unknown := cardinality(p_committed) + cardinality(p_failed) - v_hit;
    UPDATE commitment_instance o SET committed = false, failure_reason = r.reason
    FROM unnest(p_failed, p_reasons) r (uid, reason)
    WHERE o.commitment_fk = v.pk AND o.sop_instance_uid = r.uid;
    GET DIAGNOSTICS v_hit = ROW_COUNT;
    unknown := unknown - v_hit;
    PERFORM settle_commitment(v.pk, p_may_pass);
    SELECT c.* INTO v FROM commitment c WHERE c.pk = v.pk;
    request := v;
    RETURN NEXT;
END $$;

-- Counts anew what a request achieved, and says when something has to be done about the rest.
CREATE OR REPLACE FUNCTION settle_commitment(p_commitment bigint, p_may_pass integer[])
RETURNS void LANGUAGE sql AS $$
    UPDATE commitment c SET
        reports = c.reports + 1, reported_time = clock_timestamp(),
        num_committed = n.committed, num_failed = n.failed,
        status = CASE WHEN n.committed = c.num_instances THEN 'COMPLETED'
                      WHEN n.committed + n.failed < c.num_instances THEN
                          CASE WHEN c.escalated_time IS NULL THEN 'PENDING' ELSE c.status END
                      WHEN n.committed > 0 THEN 'WARNING' ELSE 'FAILED' END,
        deadline = CASE WHEN n.committed = c.num_instances OR c.escalated_time IS NOT NULL THEN NULL
                        WHEN n.committed + n.failed < c.num_instances THEN c.deadline
                        WHEN n.hopeless > 0 OR c.deadline IS NULL THEN clock_timestamp()
                        ELSE c.deadline END
    FROM (SELECT count(*) FILTER (WHERE committed) AS committed,
                 count(*) FILTER (WHERE NOT committed) AS failed,
                 count(*) FILTER (WHERE NOT committed AND failure_reason <> ALL (p_may_pass)) AS hopeless
          FROM commitment_instance WHERE commitment_fk = p_commitment) n
    WHERE c.pk = p_commitment
$$;

-- Makes an exporter deliver some instances of a study again: what it delivered of them does not count any more.
CREATE OR REPLACE FUNCTION export_again(p_intent jsonb, p_study text, p_instances bigint[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE delivery SET current = false
    WHERE instance_fk = ANY (p_instances) AND exporter_id = p_intent->>'exporter_id' AND delivered AND current;
    PERFORM join_export(p_intent, p_study, NULL, NULL);
END $$;

-- Notes what the triggers of notifications have to know of a stored object; `x` says what the called AE announces.
CREATE OR REPLACE FUNCTION note_ian_triggers(x jsonb, p_study study) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF x->>'study_delay_s' IS NOT NULL THEN
        INSERT INTO ian_trigger (device_name, local_aet, queue_name, destinations, retrieve_aets, study_instance_uid,
                                 due_time)
        VALUES (x->>'device_name', x->>'local_aet', x->>'queue_name', texts(x->'destinations'),
                texts(x->'retrieve_aets'), p_study.study_instance_uid,
                clock_timestamp() + make_interval(secs => (x->>'study_delay_s')::float8))
        ON CONFLICT (study_instance_uid) WHERE mpps_fk IS NULL DO UPDATE SET due_time = excluded.due_time
            -- Every object of a fast sender would rewrite the row; a tenth of a second does not matter to anybody.
            WHERE ian_trigger.due_time < excluded.due_time - interval '100 milliseconds';
    END IF;
    -- The transaction that stores the first object is the one that creates the study.
    IF x @> '{"first_object": true}' AND p_study.created_time = now() THEN
        PERFORM stage_ians(x, p_study.study_instance_uid, 'first object of the study received', '{}');
    END IF;
END $$;

-- Stages one notification for each destination, in their order.
CREATE OR REPLACE FUNCTION stage_ians(x jsonb, p_study text, p_reason text, p_more jsonb)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_destination text;
    v_pk          bigint;
    v_count       integer := 0;
BEGIN
    FOREACH v_destination IN ARRAY texts(x->'destinations') LOOP
        INSERT INTO task (kind, queue_name, device_name, scheduled_time, local_aet, remote_aet, study_instance_uid,
                          actor, reason)
        VALUES ('IAN', x->>'queue_name', x->>'device_name', clock_timestamp(), x->>'local_aet', v_destination,
                p_study, 'notification trigger', p_reason)
        RETURNING pk INTO v_pk;
        INSERT INTO ian_task (task_fk, retrieve_aets, instance_availability, mpps_sop_instance_uid,
                              unavailable_sop_instance_uids, sop_instance_uids)
        VALUES (v_pk, texts(x->'retrieve_aets'), 'ONLINE', p_more->>'mpps_sop_instance_uid',
                texts(coalesce(p_more->'unavailable', '[]')), texts(coalesce(p_more->'sop_instance_uids', '[]')));
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- Hides the instances that a rejection note names, and announces that they are gone.
--
-- Only instances of the note's own study: one note speaks for one study (PS3.3 §C.17.6.2.1).
CREATE OR REPLACE FUNCTION reject_instances(n jsonb, x jsonb, p_study study) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_uids text[];
BEGIN
    WITH hidden AS (
        UPDATE instance i
        SET rejected_series_fk = i.series_fk, series_fk = NULL, rejection_code = n->>'code', rejected_time = now()
        FROM series s
        WHERE s.pk = i.series_fk AND s.study_fk = p_study.pk
          AND i.sop_instance_uid IN (SELECT jsonb_array_elements_text(n->'sop_instance_uids'))
          AND i.sop_instance_uid <> n->>'note_sop_instance_uid'
        RETURNING i.sop_instance_uid)
    SELECT array_agg(sop_instance_uid) INTO v_uids FROM hidden;
    IF v_uids IS NULL THEN RETURN 0; END IF;
    UPDATE series s SET rejected_study_fk = s.study_fk, study_fk = NULL
    WHERE s.study_fk = p_study.pk AND NOT EXISTS (SELECT FROM instance i WHERE i.series_fk = s.pk);
    IF x @> '{"rejections": true}' THEN
        PERFORM stage_ians(x, p_study.study_instance_uid, 'rejection note received', jsonb_build_object(
            'unavailable', to_jsonb(v_uids),
            'mpps_sop_instance_uid', CASE WHEN n @> '{"names_step": true}'
                                          THEN performed_step_of(p_study.study_instance_uid, v_uids) END));
    END IF;
    RETURN cardinality(v_uids);
END $$;

-- Puts rejected instances of a study back where they were, and announces what is available again.
--
-- A hidden series comes back with its first instance, unless the study has got another of that UID in the meantime.
CREATE OR REPLACE FUNCTION restore_instances(n jsonb, x jsonb, p_study study) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_uids  text[] := texts(n->'sop_instance_uids');
    v_count integer;
BEGIN
    UPDATE series s SET study_fk = s.rejected_study_fk, rejected_study_fk = NULL
    WHERE s.pk IN (
        SELECT min(h.pk) FROM series h JOIN instance i ON i.rejected_series_fk = h.pk
        WHERE h.rejected_study_fk = p_study.pk AND i.sop_instance_uid = ANY (v_uids)
          AND NOT EXISTS (SELECT FROM series l WHERE l.study_fk = p_study.pk
                            AND l.series_instance_uid = h.series_instance_uid)
        GROUP BY h.series_instance_uid);
    UPDATE instance i
    SET series_fk = l.pk, rejected_series_fk = NULL, rejection_code = NULL, rejected_time = NULL
    FROM series h JOIN series l ON l.study_fk = p_study.pk AND l.series_instance_uid = h.series_instance_uid
    WHERE h.pk = i.rejected_series_fk AND p_study.pk IN (h.study_fk, h.rejected_study_fk)
      AND i.sop_instance_uid = ANY (v_uids);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    DELETE FROM series s
    WHERE s.rejected_study_fk = p_study.pk AND NOT EXISTS (SELECT FROM instance i WHERE i.rejected_series_fk = s.pk);
    IF v_count > 0 AND x @> '{"rejections": true}' THEN
        PERFORM stage_ians(x, p_study.study_instance_uid, 'rejection revoked', '{}');
    END IF;
    RETURN v_count;
END $$;

-- The performed procedure step in which rejected instances came about: the one that their series name, else the one
-- that names them; NULL when neither is known.
CREATE OR REPLACE FUNCTION performed_step_of(p_study text, p_rejected text[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT r.item #>> '{00081155,Value,0}'
         FROM instance i JOIN series s ON s.pk = i.rejected_series_fk,
              jsonb_path_query(s.attributes, '$."00081111".Value[*]') r (item)
         WHERE i.sop_instance_uid = ANY (p_rejected)
           AND r.item #>> '{00081150,Value,0}' = '1.2.840.10008.3.1.2.3.3' AND r.item #>> '{00081155,Value,0}' <> ''
         ORDER BY s.pk LIMIT 1),
        (SELECT m.sop_instance_uid FROM mpps m
         WHERE m.attributes @> jsonb_build_object('00400270', jsonb_build_object('Value', jsonb_build_array(
                   jsonb_build_object('0020000D', jsonb_build_object('Value', jsonb_build_array(p_study))))))
           AND EXISTS (
               SELECT FROM jsonb_path_query(m.attributes, '$."00400340".Value[*].*.Value[*]."00081155".Value[0]') r
               WHERE r #>> '{}' = ANY (p_rejected))
         ORDER BY m.pk LIMIT 1))
$$;

-- What follows from a stored object beside its exports: notes, announcements. Called in the transaction that stores it.
CREATE OR REPLACE FUNCTION note_reception(p jsonb, p_study study, p_kind text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_kind NOT IN ('STORED', 'REPLACED') THEN RETURN; END IF;
    IF p->'rejection' @> '{"revokes": true}' THEN
        PERFORM restore_instances(p->'rejection', coalesce(nullif(p->'announcements', 'null'), '{}'), p_study);
    ELSIF jsonb_typeof(p->'rejection') = 'object' THEN
        PERFORM reject_instances(p->'rejection', coalesce(nullif(p->'announcements', 'null'), '{}'), p_study);
    ELSE
        PERFORM note_ian_triggers(p->'announcements', p_study);
    END IF;
END $$;
