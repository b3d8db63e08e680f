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
