-- Gates: what is not handed over although it is due.

CREATE OR REPLACE FUNCTION queue_is_paused(p_device text, p_queue text)
RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (SELECT FROM queue_pause WHERE device_name = p_device AND queue_name = p_queue)
$$;

-- By an operator, or by its circuit breaker.
CREATE OR REPLACE FUNCTION destination_is_paused(p_device text, p_remote_aet text)
RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (SELECT FROM destination
                   WHERE device_name = p_device AND remote_aet = p_remote_aet
                     AND (paused_time IS NOT NULL OR tripped_time IS NOT NULL))
$$;
