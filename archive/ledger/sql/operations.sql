-- page --
-- A page of tasks in the order of a time column.
SELECT * FROM task WHERE {conditions} ORDER BY {order} LIMIT %(limit)s;

-- count --
-- How many tasks match.
SELECT count(*) FROM task WHERE {conditions};

-- count_by_status --
-- How many matching tasks stand in each status.
SELECT status, count(*) FROM task WHERE {conditions} GROUP BY status;

-- batches --
-- Matching tasks of each batch by status, latest batch first.
SELECT batch_id, status, count(*), min(created_time), max(updated_time)
FROM task WHERE batch_id IS NOT NULL AND {conditions}
GROUP BY batch_id, status ORDER BY max(updated_time) DESC, batch_id, status;

-- cancel_chunk --
-- Cancel the next matching tasks; those running are asked to stop, done ones are left.
WITH chosen AS MATERIALIZED (
    SELECT pk, status FROM task WHERE pk > %(after)s AND {conditions} ORDER BY pk LIMIT %(limit)s FOR UPDATE
), changed AS (
    UPDATE task t SET
        status = CASE WHEN c.status = 'IN PROCESS' THEN c.status ELSE 'CANCELED' END,
        cancel_requested = c.status = 'IN PROCESS', dispatched_time = NULL,
        end_time = CASE WHEN c.status = 'IN PROCESS' THEN NULL ELSE clock_timestamp() END,
        updated_time = clock_timestamp(), actor = %(actor)s, reason = %(reason)s
    FROM chosen c WHERE t.pk = c.pk AND c.status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS')
    RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
)
SELECT c.status, count(*), count(d.pk), max(c.pk), (SELECT * FROM told)
FROM chosen c LEFT JOIN changed d USING (pk) GROUP BY c.status;

-- reschedule_chunk --
-- Make the next matching tasks due again; a running one is asked to stop and scheduled when it has.
WITH chosen AS MATERIALIZED (
    SELECT pk, status FROM task WHERE pk > %(after)s AND {conditions} ORDER BY pk LIMIT %(limit)s FOR UPDATE
), changed AS (
    UPDATE task t SET
        status = CASE WHEN c.status = 'IN PROCESS' THEN c.status ELSE 'SCHEDULED' END,
        cancel_requested = c.status = 'IN PROCESS',
        reschedule_time = CASE WHEN c.status = 'IN PROCESS' THEN due.at END,
        dispatched_time = NULL, follow_up_only = CASE WHEN c.status = 'IN PROCESS' THEN t.follow_up_only ELSE false END,
        attempt = t.attempt + (c.status <> 'IN PROCESS')::integer,
        round = t.round + (c.status = 'COMPLETED' OR %(exporter_id)s::text IS NOT NULL)::integer,
        failures = CASE WHEN c.status = 'IN PROCESS' THEN t.failures ELSE 0 END,
        scheduled_time = CASE WHEN c.status = 'IN PROCESS' THEN t.scheduled_time ELSE due.at END,
        start_time = CASE WHEN c.status = 'IN PROCESS' THEN t.start_time END, end_time = NULL,
        error_message = NULL, outcome_message = NULL,
        queue_name = coalesce(%(queue_name)s, t.queue_name), exporter_id = coalesce(%(exporter_id)s, t.exporter_id),
        local_aet = coalesce(%(local_aet)s, t.local_aet), remote_aet = coalesce(%(remote_aet)s, t.remote_aet),
        updated_time = clock_timestamp(), actor = %(actor)s, reason = %(reason)s
    FROM chosen c, (SELECT coalesce(%(at)s, clock_timestamp()) AS at) due
    WHERE t.pk = c.pk AND (%(exporter_id)s::text IS NULL OR (t.kind = 'EXPORT' AND c.status <> 'IN PROCESS'))
    RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
), woken AS (
    SELECT pg_notify('dicomq_task', '') FROM changed LIMIT 1
)
SELECT c.status, count(*), count(d.pk), max(c.pk), (SELECT * FROM told), (SELECT count(*) FROM woken)
FROM chosen c LEFT JOIN changed d USING (pk) GROUP BY c.status;

-- delete_chunk --
-- Delete the next matching tasks; the worker of a running one finds its claim gone and stops.
WITH chosen AS MATERIALIZED (
    SELECT pk, status FROM task WHERE pk > %(after)s AND {conditions} ORDER BY pk LIMIT %(limit)s FOR UPDATE
), changed AS (
    DELETE FROM task t USING chosen c WHERE t.pk = c.pk RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
)
SELECT c.status, count(*), count(d.pk), max(c.pk), (SELECT * FROM told)
FROM chosen c LEFT JOIN changed d USING (pk) GROUP BY c.status;
