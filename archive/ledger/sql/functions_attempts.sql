-- Claims and results of several threads in one transaction: one flush of the log, one notification, one row of triggers.
--
-- They take the plain cases only and wait for no lock, so they are part of no deadlock. Whoever is missing from the
-- answer goes through claim_task or finish_task alone, which also say what to do with a task that may not run now.

CREATE OR REPLACE FUNCTION claim_tasks(p_pks bigint[], p_attempts integer[], p_worker text, p_lease interval)
RETURNS SETOF task LANGUAGE plpgsql AS $$
DECLARE v_free bigint[];
BEGIN
    -- The advisory locks come before the rows', as in join_export; of the exports of one study one at a time.
    WITH hinted AS MATERIALIZED (
        SELECT t.pk, t.kind, t.exporter_id, t.study_instance_uid,
               row_number() OVER (PARTITION BY t.kind, t.exporter_id, t.study_instance_uid ORDER BY t.pk) AS place
        FROM unnest(p_pks, p_attempts) AS h (pk, attempt) JOIN task t USING (pk, attempt)
        WHERE t.dispatched_time IS NOT NULL
    )
    SELECT array_agg(pk) INTO v_free FROM hinted
    WHERE CASE WHEN kind <> 'EXPORT' THEN true
               WHEN place > 1 THEN false
               ELSE pg_try_advisory_xact_lock(hashtextextended(exporter_id || ' ' || study_instance_uid, 1)) END;
    RETURN QUERY
    WITH free AS MATERIALIZED (
        SELECT t.pk FROM unnest(p_pks, p_attempts) AS h (pk, attempt) JOIN task t USING (pk, attempt)
        WHERE t.pk = ANY (v_free) AND t.dispatched_time IS NOT NULL AND t.scheduled_time <= clock_timestamp()
          AND NOT queue_is_paused(t.device_name, t.queue_name)
          AND NOT destination_is_paused(t.device_name, t.remote_aet)
          AND (t.kind <> 'EXPORT' OR NOT EXISTS (
              SELECT FROM task r
              WHERE r.kind = 'EXPORT' AND r.status = 'IN PROCESS' AND r.exporter_id = t.exporter_id
                AND r.study_instance_uid = t.study_instance_uid
                AND entities_overlap(r.series_instance_uid, r.sop_instance_uid,
                                     t.series_instance_uid, t.sop_instance_uid)))
        FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE task t
    SET status = 'IN PROCESS', dispatched_time = NULL, lease_until = clock_timestamp() + p_lease,
        worker = p_worker, start_time = clock_timestamp(), end_time = NULL, updated_time = clock_timestamp(),
        actor = p_worker, reason = 'claimed'
    FROM free WHERE t.pk = free.pk
    RETURNING t.*;
END $$;

-- A task that somebody wishes to stop, and one whose destination failed of late, are finished alone.
CREATE OR REPLACE FUNCTION finish_tasks(
    p_pks bigint[], p_attempts integer[], p_statuses text[], p_failed boolean[], p_delays float8[], p_errors text[],
    p_outcomes text[], p_actor text
) RETURNS TABLE (finished_pk bigint, finished_status text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT t.pk, e.status, e.failed, e.delay_s, e.error_message, e.outcome_message
        FROM unnest(p_pks, p_attempts, p_statuses, p_failed, p_delays, p_errors, p_outcomes)
                 AS e (pk, attempt, status, failed, delay_s, error_message, outcome_message)
             JOIN task t USING (pk, attempt)
        WHERE t.status = 'IN PROCESS' AND NOT t.cancel_requested
          AND NOT EXISTS (SELECT FROM destination d
                          WHERE d.device_name = t.device_name AND d.remote_aet = t.remote_aet AND d.failures > 0)
        FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE task t SET
        status = h.status, lease_until = NULL, end_time = clock_timestamp(), updated_time = clock_timestamp(),
        failures = t.failures + h.failed::integer,
        scheduled_time = CASE WHEN h.status = 'SCHEDULED FOR RETRY'
                              THEN clock_timestamp() + make_interval(secs => h.delay_s) ELSE t.scheduled_time END,
        error_message = h.error_message, outcome_message = h.outcome_message, actor = p_actor,
        reason = h.outcome_message
    FROM held h WHERE t.pk = h.pk
    RETURNING t.pk, t.status;
    PERFORM pg_notify('dicomq_task', '');
END $$;
