-- page --
-- A page of tasks in the order of a time column.
SELECT * FROM task WHERE {conditions} ORDER BY {order} LIMIT %(limit)s;

-- page_of_status --
-- A page of one status along the index that begins with it. The conditions bound the status instead of naming it: else
-- the planner takes the order for one by time alone, and walks past all tasks of other statuses that changed of late.
SELECT * FROM task WHERE {conditions} ORDER BY {order} LIMIT %(limit)s

-- merged_pages --
-- The page of several statuses, of the pages of each.
SELECT * FROM ({pages}) AS page ORDER BY {order} LIMIT %(limit)s;

-- count --
-- How many tasks match.
SELECT count(*) FROM task WHERE {conditions};

-- count_by_status --
-- How many matching tasks stand in each status.
SELECT status, count(*) FROM task WHERE {conditions} GROUP BY status;

-- due_in_s --
-- Seconds until a time, by the clock that decides when a task is due.
SELECT coalesce(extract(epoch FROM %(at)s::timestamptz - clock_timestamp()), 0)::float8;

-- batches --
-- Batches of matching tasks, latest change first: counts by status, who sends them, and times.
WITH part AS (
    SELECT batch_id, status, exporter_id, device_name, count(*) AS tasks, min(created_time) AS first_created,
           max(created_time) AS last_created, min(updated_time) AS first_updated, max(updated_time) AS last_updated,
           min(scheduled_time) AS first_scheduled, max(scheduled_time) AS last_scheduled
    FROM task WHERE batch_id IS NOT NULL AND {conditions}
    GROUP BY batch_id, status, exporter_id, device_name
), total AS (
    SELECT batch_id, status, sum(tasks)::bigint AS tasks FROM part GROUP BY batch_id, status
)
SELECT batch_id, (SELECT jsonb_object_agg(status, tasks) FROM total t WHERE t.batch_id = p.batch_id),
       array_remove(array_agg(DISTINCT exporter_id), NULL), array_agg(DISTINCT device_name),
       min(first_created), max(last_created), min(first_updated), max(last_updated), min(first_scheduled),
       max(last_scheduled)
FROM part p
GROUP BY batch_id ORDER BY max(last_updated) DESC, batch_id LIMIT %(limit)s;

-- preview_cancel --
-- What canceling the matching tasks would do.
SELECT status, cancel_verdict(status), count(*) FROM task WHERE {conditions} GROUP BY 1, 2;

-- preview_reschedule --
-- What rescheduling the matching tasks would do.
SELECT status, reschedule_verdict(kind, status, %(exporter_id)s, %(queue_name)s), count(*)
FROM task WHERE {conditions} GROUP BY 1, 2;

-- preview_delete --
-- What deleting the matching tasks would do.
SELECT status, NULL, count(*) FROM task WHERE {conditions} GROUP BY 1;

-- lock_chunk --
-- Lock the next matching tasks. The change is a statement of its own, so that it sees what was committed meanwhile.
SELECT pk FROM task WHERE pk > %(after)s AND {conditions} ORDER BY pk LIMIT %(limit)s FOR UPDATE;

-- cancel_chunk --
-- Cancel locked tasks; those running are asked to stop, done ones are left.
WITH chosen AS MATERIALIZED (
    SELECT pk, status, cancel_verdict(status) AS verdict FROM task WHERE pk = ANY(%(pks)s)
), changed AS (
    UPDATE task t SET
        status = CASE WHEN c.status = 'IN PROCESS' THEN c.status ELSE 'CANCELED' END,
        cancel_requested = c.status = 'IN PROCESS', reschedule_time = NULL, dispatched_time = NULL,
        end_time = CASE WHEN c.status = 'IN PROCESS' THEN NULL ELSE clock_timestamp() END,
        updated_time = clock_timestamp(), actor = %(actor)s, reason = %(reason)s
    FROM chosen c WHERE t.pk = c.pk AND c.verdict IS NULL
    RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
)
SELECT status, verdict, count(*), (SELECT * FROM told) FROM chosen GROUP BY status, verdict;

-- reschedule_chunk --
-- Make locked tasks due again; a running one is asked to stop and scheduled when it has.
WITH chosen AS MATERIALIZED (
    SELECT pk, status, reschedule_verdict(kind, status, %(exporter_id)s, %(queue_name)s) AS verdict
    FROM task WHERE pk = ANY(%(pks)s)
), changed AS (
    UPDATE task t SET
        status = CASE WHEN c.status = 'IN PROCESS' THEN c.status ELSE 'SCHEDULED' END,
        cancel_requested = c.status = 'IN PROCESS',
        reschedule_time = CASE WHEN c.status = 'IN PROCESS' THEN due.at END,
        dispatched_time = NULL, follow_up_only = CASE WHEN c.status = 'IN PROCESS' THEN t.follow_up_only ELSE false END,
        attempt = t.attempt + (c.status <> 'IN PROCESS')::integer,
        first_attempt = CASE WHEN c.status = 'IN PROCESS' THEN t.first_attempt ELSE t.attempt + 1 END,
        round = t.round + (c.status = 'COMPLETED' OR %(exporter_id)s::text IS NOT NULL)::integer,
        failures = CASE WHEN c.status = 'IN PROCESS' THEN t.failures ELSE 0 END,
        scheduled_time = CASE WHEN c.status = 'IN PROCESS' THEN t.scheduled_time ELSE due.at END,
        start_time = CASE WHEN c.status = 'IN PROCESS' THEN t.start_time END, end_time = NULL,
        worker = CASE WHEN c.status = 'IN PROCESS' THEN t.worker END, error_message = NULL, outcome_message = NULL,
        queue_name = coalesce(%(queue_name)s, t.queue_name), exporter_id = coalesce(%(exporter_id)s, t.exporter_id),
        local_aet = coalesce(%(local_aet)s, t.local_aet), remote_aet = coalesce(%(remote_aet)s, t.remote_aet),
        updated_time = clock_timestamp(), actor = %(actor)s, reason = %(reason)s
    FROM chosen c, (SELECT coalesce(%(at)s, clock_timestamp()) AS at) due
    WHERE t.pk = c.pk AND c.verdict IS NULL
    RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
), woken AS (
    SELECT pg_notify('dicomq_task', '') FROM changed LIMIT 1
)
SELECT status, verdict, count(*), (SELECT * FROM told), (SELECT count(*) FROM woken)
FROM chosen GROUP BY status, verdict;

-- delete_chunk --
-- Delete locked tasks; the worker of a running one finds its claim gone and stops.
WITH chosen AS MATERIALIZED (
    SELECT pk, status FROM task WHERE pk = ANY(%(pks)s)
), changed AS (
    DELETE FROM task t USING chosen c WHERE t.pk = c.pk RETURNING t.pk, c.status
), told AS (
    SELECT count(pg_notify('dicomq_cancel', pk::text)) FROM changed WHERE status = 'IN PROCESS'
)
SELECT status, NULL, count(*), (SELECT * FROM told), (SELECT count(*) FROM changed)
FROM chosen GROUP BY status;

-- extents --
-- How much some export tasks cover, as far as they have found out.
SELECT task_fk, num_instances, coalesce(modalities, ARRAY[]::text[]) FROM export_task WHERE task_fk = ANY(%(task_pks)s);
