-- stage --
-- Insert a task that somebody asked for.
INSERT INTO task (kind, queue_name, device_name, scheduled_time, follow_up_only, batch_id, local_aet, remote_aet,
                  exporter_id, study_instance_uid, series_instance_uid, sop_instance_uid, actor, reason)
VALUES (%(kind)s, %(queue_name)s, %(device_name)s, clock_timestamp() + make_interval(secs => %(due_in_s)s), false,
        %(batch_id)s, %(local_aet)s, %(remote_aet)s, %(exporter_id)s, %(study_instance_uid)s,
        %(series_instance_uid)s, %(sop_instance_uid)s, %(actor)s, %(reason)s)
RETURNING pk;

-- stage_export_detail --
-- Detail row of an export task.
INSERT INTO export_task (task_fk) VALUES (%(task_pk)s);

-- stage_ian_detail --
-- Detail row of a notification task; one that joined a waiting task keeps that task's row.
INSERT INTO ian_task (task_fk, retrieve_aets, instance_availability, retrieve_location_uid, held_by_exporter,
                      mpps_sop_instance_uid, unavailable_sop_instance_uids, sop_instance_uids)
VALUES (%(task_pk)s, %(retrieve_aets)s, %(instance_availability)s, %(retrieve_location_uid)s, %(held_by_exporter)s,
        %(mpps_sop_instance_uid)s, %(unavailable_sop_instance_uids)s, %(sop_instance_uids)s)
ON CONFLICT (task_fk) DO NOTHING;

-- stage_follow_up_ian --
-- Announce what an exporter delivered, unless a notification staged after its last delivery does so already.
-- A waiting one is joined: the update keeps its row locked until this transaction's deliveries are visible.
INSERT INTO task (kind, queue_name, device_name, scheduled_time, follow_up_only, batch_id, local_aet, remote_aet,
                  exporter_id, study_instance_uid, actor, reason)
SELECT 'IAN', %(queue_name)s, %(device_name)s, clock_timestamp() + make_interval(secs => %(due_in_s)s), true,
       %(batch_id)s, %(local_aet)s, %(remote_aet)s, %(exporter_id)s, %(study_instance_uid)s, %(actor)s, %(reason)s
WHERE NOT EXISTS (
    SELECT FROM task n
    WHERE n.kind = 'IAN' AND n.remote_aet = %(remote_aet)s AND n.study_instance_uid = %(study_instance_uid)s
      AND n.exporter_id = %(exporter_id)s AND n.follow_up_only AND n.status <> 'CANCELED' AND n.status <> 'FAILED'
      AND n.created_time > (
          SELECT max(d.time)
          FROM delivery d JOIN instance i ON i.pk = d.instance_fk JOIN series s ON s.pk = i.series_fk
               JOIN study t ON t.pk = s.study_fk
          WHERE t.study_instance_uid = %(study_instance_uid)s AND d.exporter_id = %(exporter_id)s AND d.delivered))
ON CONFLICT (remote_aet, study_instance_uid, (coalesce(exporter_id, '')))
    WHERE kind = 'IAN' AND status = 'SCHEDULED' AND follow_up_only
    DO UPDATE SET updated_time = now()
RETURNING pk;

-- get --
-- One task.
SELECT * FROM task WHERE pk = %(pk)s;

-- history --
-- What happened to a task, oldest first.
SELECT time, from_status, to_status, attempt, actor, reason
FROM task_history WHERE task_fk = %(pk)s ORDER BY pk;

-- count_by_status --
-- How many tasks of each kind stand in each status.
SELECT kind, status, count(*) FROM task GROUP BY kind, status;

-- waiting_queues --
-- Each open queue with tasks that were not handed over yet, and when the earliest to an open destination is due
-- (a skip scan of task_waiting: one look for each queue and destination).
WITH RECURSIVE slot AS (
    (SELECT queue_name, coalesce(remote_aet, '') AS remote_aet, scheduled_time FROM task
     WHERE device_name = %(device_name)s AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
     ORDER BY queue_name, coalesce(remote_aet, ''), scheduled_time LIMIT 1)
    UNION ALL
    SELECT n.* FROM slot s CROSS JOIN LATERAL (
        SELECT queue_name, coalesce(remote_aet, ''), scheduled_time FROM task
        WHERE device_name = %(device_name)s AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY')
          AND dispatched_time IS NULL AND (queue_name, coalesce(remote_aet, '')) > (s.queue_name, s.remote_aet)
        ORDER BY queue_name, coalesce(remote_aet, ''), scheduled_time LIMIT 1) n
)
SELECT queue_name, extract(epoch FROM min(scheduled_time) - statement_timestamp())::float8, statement_timestamp()
FROM slot s
WHERE NOT EXISTS (SELECT FROM queue_pause p WHERE p.device_name = %(device_name)s AND p.queue_name = s.queue_name)
  AND NOT EXISTS (SELECT FROM destination d
                  WHERE d.device_name = %(device_name)s AND d.remote_aet = s.remote_aet
                    AND (d.paused_time IS NOT NULL OR d.tripped_time IS NOT NULL))
GROUP BY queue_name;

-- lock_queue --
-- One dispatcher at a time fills a queue, else two of them could exceed its limit.
-- Its marks need not reach the disk before their hints are published: the claim that builds on a mark takes it there,
-- and a mark that a crash undoes is made again with the same attempt, of which only one hint can be claimed.
SELECT pg_try_advisory_xact_lock(hashtextextended(%(device_name)s || ' ' || %(queue_name)s, 0)),
       set_config('synchronous_commit', 'off', true);

-- dispatch --
-- Hand over due tasks of a queue to open destinations, as many as its limit leaves room for.
WITH RECURSIVE slot AS (
    (SELECT coalesce(remote_aet, '') AS remote_aet FROM task
     WHERE device_name = %(device_name)s AND queue_name = %(queue_name)s
       AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
     ORDER BY coalesce(remote_aet, '') LIMIT 1)
    UNION ALL
    SELECT n.* FROM slot s CROSS JOIN LATERAL (
        SELECT coalesce(remote_aet, '') FROM task
        WHERE device_name = %(device_name)s AND queue_name = %(queue_name)s
          AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
          AND coalesce(remote_aet, '') > s.remote_aet
        ORDER BY coalesce(remote_aet, '') LIMIT 1) n
), room AS MATERIALIZED (
    SELECT CASE WHEN queue_is_paused(%(device_name)s, %(queue_name)s) THEN 0
                ELSE greatest(0, %(limit)s - count(*)) END AS size
    FROM task f
    WHERE f.device_name = %(device_name)s AND f.queue_name = %(queue_name)s
      AND (f.status = 'IN PROCESS' OR f.dispatched_time IS NOT NULL)
), open_slot AS MATERIALIZED (
    SELECT remote_aet FROM slot s
    WHERE NOT EXISTS (SELECT FROM destination d
                      WHERE d.device_name = %(device_name)s AND d.remote_aet = s.remote_aet
                        AND (d.paused_time IS NOT NULL OR d.tripped_time IS NOT NULL))
), due AS (
    SELECT c.pk FROM open_slot s CROSS JOIN LATERAL (
        SELECT t.pk, t.scheduled_time FROM task t
        WHERE t.device_name = %(device_name)s AND t.queue_name = %(queue_name)s
          AND t.status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND t.dispatched_time IS NULL
          AND coalesce(t.remote_aet, '') = s.remote_aet AND t.scheduled_time <= statement_timestamp()
          AND (t.kind <> 'EXPORT' OR NOT EXISTS (
              SELECT FROM task r
              WHERE r.kind = 'EXPORT' AND r.status = 'IN PROCESS' AND r.exporter_id = t.exporter_id
                AND r.study_instance_uid = t.study_instance_uid
                AND entities_overlap(r.series_instance_uid, r.sop_instance_uid,
                                     t.series_instance_uid, t.sop_instance_uid)))
        ORDER BY t.scheduled_time, t.pk
        LIMIT (SELECT size FROM room)
        FOR UPDATE OF t SKIP LOCKED) c
    ORDER BY c.scheduled_time, c.pk
    LIMIT (SELECT size FROM room)
), handed AS (
    UPDATE task t SET dispatched_time = clock_timestamp(), attempt = t.attempt + 1
    FROM due WHERE t.pk = due.pk
    RETURNING t.pk, t.attempt, t.scheduled_time
)
SELECT pk, attempt FROM handed ORDER BY scheduled_time, pk;

-- announce --
-- Tell workers that do not listen to a queue that it has hints.
SELECT pg_notify('dicomq_queue', %(queue_name)s);

-- unclaimed --
-- Per queue, how many tasks were handed over longer ago than they should wait for a worker.
SELECT queue_name, count(*) FROM task
WHERE device_name = %(device_name)s AND dispatched_time < clock_timestamp() - make_interval(secs => %(older_than_s)s)
GROUP BY queue_name;

-- redispatch --
-- Hand over again what the broker lost; the raised attempt makes a hint that turns up after all stale.
UPDATE task SET dispatched_time = clock_timestamp(), attempt = attempt + 1
WHERE device_name = %(device_name)s AND queue_name = %(queue_name)s
  AND dispatched_time < clock_timestamp() - make_interval(secs => %(older_than_s)s)
RETURNING pk, attempt;

-- claim --
-- Give a task to the worker that brings the hint of its present attempt.
SELECT * FROM claim_task(%(pk)s, %(attempt)s, %(worker)s, make_interval(secs => %(lease_s)s));

-- renew --
-- Renew the leases of running tasks; what is missing from the answer was lost.
UPDATE task t SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM unnest(%(pks)s::bigint[], %(attempts)s::integer[]) AS held (pk, attempt)
WHERE t.pk = held.pk AND t.attempt = held.attempt AND t.status = 'IN PROCESS'
RETURNING t.pk, t.attempt, t.cancel_requested;

-- finish --
-- End an attempt; NULL: the claim was lost and nothing was changed.
SELECT finish_task(%(pk)s, %(attempt)s, %(status)s, %(failed)s, %(delay_s)s, %(error_message)s, %(outcome_message)s,
                   %(actor)s, %(reason)s);

-- lapsed --
-- Running tasks whose worker did not renew its lease.
SELECT * FROM task
WHERE status = 'IN PROCESS' AND lease_until < clock_timestamp() AND device_name = %(device_name)s
ORDER BY lease_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- cancel --
-- Cancel a task, or ask its worker to stop; the status in which it was met, NULL: there is no such task.
SELECT cancel_task(%(pk)s, %(actor)s, %(reason)s);

-- reschedule --
-- Make a waiting or done task due again. A completed one starts a new round: everything is sent again.
UPDATE task SET status = 'SCHEDULED', dispatched_time = NULL, attempt = attempt + 1, failures = 0,
    round = round + (status = 'COMPLETED')::integer, first_attempt = attempt + 1, follow_up_only = false,
    scheduled_time = clock_timestamp() + make_interval(secs => %(due_in_s)s), start_time = NULL, end_time = NULL,
    error_message = NULL, outcome_message = NULL, worker = NULL, updated_time = clock_timestamp(),
    actor = %(actor)s, reason = %(reason)s
WHERE pk = %(pk)s AND status <> 'IN PROCESS'
RETURNING pg_notify('dicomq_task', '');

-- purge --
-- Delete done tasks of a queue that were last changed longer ago than the queue keeps them.
WITH old AS (
    SELECT pk FROM task
    WHERE device_name = %(device_name)s AND queue_name = %(queue_name)s AND status = %(status)s
      AND updated_time < clock_timestamp() - make_interval(secs => %(older_than_s)s)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM task t USING old WHERE t.pk = old.pk;
