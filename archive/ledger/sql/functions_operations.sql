-- What an operation on many tasks does with each: NULL changes it, a text is the reason why it is skipped.

CREATE OR REPLACE FUNCTION cancel_verdict(p_status text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_status NOT IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS') THEN p_status END
$$;

CREATE OR REPLACE FUNCTION reschedule_verdict(p_kind text, p_status text, p_exporter text, p_queue text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN p_exporter IS NOT NULL AND p_kind <> 'EXPORT' THEN p_kind || ' is no export'
        WHEN p_exporter IS NULL AND p_queue IS NOT NULL AND p_kind <> 'RETRIEVE' THEN p_kind || ' is no retrieve'
        WHEN (p_exporter IS NOT NULL OR p_queue IS NOT NULL) AND p_status = 'IN PROCESS' THEN p_status END
$$;

-- Cancels a task that no worker has claimed, asks the worker of a running one to stop, and leaves a done one. Returns
-- the status in which it was found, under a lock: the answer is true of the moment at which it was acted upon.
CREATE OR REPLACE FUNCTION cancel_task(p_pk bigint, p_actor text, p_reason text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_status text;
BEGIN
    SELECT status INTO v_status FROM task WHERE pk = p_pk FOR UPDATE;
    IF v_status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') THEN
        UPDATE task SET status = 'CANCELED', dispatched_time = NULL, end_time = clock_timestamp(),
            updated_time = clock_timestamp(), actor = p_actor, reason = p_reason
        WHERE pk = p_pk;
    ELSIF v_status = 'IN PROCESS' THEN
        UPDATE task SET cancel_requested = true, reschedule_time = NULL, updated_time = clock_timestamp(),
            actor = p_actor, reason = p_reason
        WHERE pk = p_pk;
        PERFORM pg_notify('dicomq_cancel', p_pk::text);
    END IF;
    RETURN v_status;
END $$;
