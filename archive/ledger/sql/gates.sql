-- pause_queue --
-- Stop handing tasks of a queue over; one that is paused already keeps who did it, when and why.
INSERT INTO queue_pause (device_name, queue_name, actor, reason)
VALUES (%(device_name)s, %(queue_name)s, %(actor)s, %(reason)s)
ON CONFLICT (device_name, queue_name) DO NOTHING
RETURNING true;

-- resume_queue --
-- Hand tasks of a queue over again.
DELETE FROM queue_pause WHERE device_name = %(device_name)s AND queue_name = %(queue_name)s
RETURNING pg_notify('dicomq_task', '');

-- queue_pauses --
-- Paused queues.
SELECT queue_name, paused_time, actor, reason FROM queue_pause WHERE device_name = %(device_name)s ORDER BY queue_name;

-- queue_loads --
-- How many tasks of each queue stand in each status, how many of them are in flight and due, and since when: those
-- that wait, from task_waiting alone, and those in flight, which are few. What waits for a destination that is paused
-- or cannot be reached is due, but nobody is late with it.
SELECT queue_name, status, sum(tasks)::bigint, sum(in_flight)::bigint, sum(due)::bigint, min(oldest_due)
FROM (
    SELECT queue_name, status, count(*) AS tasks, 0 AS in_flight,
           count(*) FILTER (WHERE scheduled_time <= statement_timestamp()) AS due,
           min(scheduled_time) FILTER (
               WHERE scheduled_time <= statement_timestamp()
                 AND coalesce(remote_aet, '') <> ALL (ARRAY(
                     SELECT remote_aet FROM destination WHERE device_name = %(device_name)s
                       AND (paused_time IS NOT NULL OR tripped_time IS NOT NULL)))) AS oldest_due
    FROM task
    WHERE device_name = %(device_name)s AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
    GROUP BY queue_name, status
    UNION ALL
    SELECT queue_name, status, count(*), count(*), count(*) FILTER (WHERE status <> 'IN PROCESS'),
           min(scheduled_time) FILTER (WHERE status <> 'IN PROCESS')
    FROM task
    WHERE device_name = %(device_name)s AND (status = 'IN PROCESS' OR dispatched_time IS NOT NULL)
    GROUP BY queue_name, status
) part
GROUP BY queue_name, status;

-- pause_destination --
-- Stop handing tasks to a destination over; one that is paused already keeps who did it, when and why.
INSERT INTO destination (device_name, remote_aet, paused_time, actor, reason)
VALUES (%(device_name)s, %(remote_aet)s, clock_timestamp(), %(actor)s, %(reason)s)
ON CONFLICT (device_name, remote_aet) DO UPDATE
    SET paused_time = excluded.paused_time, actor = excluded.actor, reason = excluded.reason
    WHERE destination.paused_time IS NULL
RETURNING true;

-- resume_destination --
-- Take an operator's pause back; a destination that is being probed is probed at once.
UPDATE destination
SET paused_time = NULL, actor = NULL, reason = NULL,
    next_probe_time = CASE WHEN tripped_time IS NOT NULL THEN clock_timestamp() END
WHERE device_name = %(device_name)s AND remote_aet = %(remote_aet)s
  AND (paused_time IS NOT NULL OR tripped_time IS NOT NULL)
RETURNING pg_notify('dicomq_task', '');

-- destinations --
-- Destinations that are paused or failed of late.
SELECT remote_aet, paused_time, actor, reason, failures, last_error, tripped_time, probes, next_probe_time
FROM destination
WHERE device_name = %(device_name)s AND (paused_time IS NOT NULL OR failures > 0)
ORDER BY remote_aet;

-- destination_loads --
-- How many tasks wait for each destination, read as for queue_loads.
SELECT remote_aet, sum(tasks)::bigint
FROM (
    SELECT coalesce(remote_aet, '') AS remote_aet, count(*) AS tasks FROM task
    WHERE device_name = %(device_name)s AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL
    GROUP BY coalesce(remote_aet, '')
    UNION ALL
    SELECT coalesce(remote_aet, ''), count(*) FROM task
    WHERE device_name = %(device_name)s AND (status = 'IN PROCESS' OR dispatched_time IS NOT NULL)
      AND status <> 'IN PROCESS'
    GROUP BY coalesce(remote_aet, '')
) part
GROUP BY remote_aet;

-- note_failure --
-- Count a connection failure, and pause the destination from the given number in a row on.
INSERT INTO destination AS d (device_name, remote_aet, failures, local_aet, last_error, tripped_time, next_probe_time)
SELECT %(device_name)s, %(remote_aet)s, 1, %(local_aet)s, %(error)s, t.tripped, t.tripped + f.wait
FROM (SELECT CASE WHEN %(threshold)s <= 1 THEN clock_timestamp() END AS tripped) t,
     (SELECT make_interval(secs => %(first_probe_s)s) AS wait) f
ON CONFLICT (device_name, remote_aet) DO UPDATE SET
    failures = d.failures + 1, local_aet = excluded.local_aet, last_error = excluded.last_error,
    tripped_time = CASE WHEN d.failures + 1 >= %(threshold)s THEN coalesce(d.tripped_time, clock_timestamp()) END,
    next_probe_time = CASE WHEN d.failures + 1 >= %(threshold)s
        THEN coalesce(d.next_probe_time, clock_timestamp() + make_interval(secs => %(first_probe_s)s)) END
RETURNING tripped_time IS NOT NULL;

-- take_probes --
-- Take due probes; the time is moved on, so that nobody else takes them while this prober lives.
WITH due AS (
    SELECT remote_aet FROM destination
    WHERE device_name = %(device_name)s AND next_probe_time <= clock_timestamp() AND paused_time IS NULL
    ORDER BY next_probe_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE destination d SET next_probe_time = clock_timestamp() + make_interval(secs => %(lease_s)s), probes = probes + 1
FROM due WHERE d.device_name = %(device_name)s AND d.remote_aet = due.remote_aet
RETURNING d.remote_aet, d.local_aet, d.probes, d.tripped_time;

-- probe_failed --
-- A destination did not answer its C-ECHO: next try later. Zero rows: its circuit was closed meanwhile.
UPDATE destination
SET last_error = %(error)s, next_probe_time = clock_timestamp() + make_interval(secs => %(delay_s)s)
WHERE device_name = %(device_name)s AND remote_aet = %(remote_aet)s AND tripped_time = %(tripped_time)s
RETURNING true;

-- close_circuit --
-- A destination answered: its tasks are handed over again.
UPDATE destination SET failures = 0, tripped_time = NULL, next_probe_time = NULL, probes = 0
WHERE device_name = %(device_name)s AND remote_aet = %(remote_aet)s AND tripped_time IS NOT NULL
RETURNING pg_notify('dicomq_task', '');
