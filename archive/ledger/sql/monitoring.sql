-- committed --
-- How many of the study's current instances are committed, by destination.
SELECT c.remote_aet, count(DISTINCT ci.instance_fk)
FROM commitment c JOIN commitment_instance ci ON ci.commitment_fk = c.pk AND ci.committed
     JOIN instance i ON i.pk = ci.instance_fk AND i.version = ci.instance_version
WHERE c.study_instance_uid = %(study)s GROUP BY c.remote_aet;

-- notified --
-- Latest accepted notification about a study, by receiver.
SELECT remote_aet, max(end_time) FROM task
WHERE study_instance_uid = %(study)s AND kind = 'IAN' AND status IN ('COMPLETED', 'WARNING') AND remote_aet IS NOT NULL
GROUP BY remote_aet ORDER BY remote_aet;

-- throughput --
-- Ended tasks by destination and slice of time: how many, how many of them failed, seconds from start to end.
SELECT coalesce(remote_aet, ''), date_bin(make_interval(secs => %(slice_s)s), end_time, '2000-01-01T00:00:00Z'),
       count(*), count(*) FILTER (WHERE status = 'FAILED'),
       coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM end_time - start_time)), 0)::float8,
       coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM end_time - start_time)), 0)::float8
FROM task
WHERE updated_time >= clock_timestamp() - make_interval(secs => %(since_s)s)
      AND end_time >= clock_timestamp() - make_interval(secs => %(since_s)s)
      AND status IN ('COMPLETED', 'WARNING', 'FAILED') AND start_time IS NOT NULL AND device_name = %(device_name)s
GROUP BY 1, 2 ORDER BY 1, 2;

-- commitments --
-- A page of requests for commitment, latest change first; what was asked for stands in the task, while there is one.
SELECT c.pk, c.transaction_uid, c.task_fk, c.exporter_id, c.remote_aet, c.status, c.study_instance_uid,
       t.series_instance_uid, t.sop_instance_uid, c.batch_id, c.device_name, c.num_instances, c.num_committed,
       c.num_failed, c.requested_time, coalesce(c.reported_time, c.accepted_time, c.requested_time)
FROM commitment c LEFT JOIN task t ON t.pk = c.task_fk
WHERE (%(status)s::text IS NULL OR c.status = %(status)s)
      AND (%(study)s::text IS NULL OR c.study_instance_uid = %(study)s)
      AND (%(exporter_id)s::text IS NULL OR c.exporter_id = %(exporter_id)s)
      AND (%(batch_id)s::text IS NULL OR c.batch_id = %(batch_id)s)
      AND (%(task_pk)s::bigint IS NULL OR c.task_fk = %(task_pk)s)
ORDER BY coalesce(c.reported_time, c.accepted_time, c.requested_time) DESC, c.pk DESC
OFFSET %(offset)s LIMIT %(limit)s;

-- delete_commitments --
-- Forget requests for commitment.
DELETE FROM commitment
WHERE (%(transaction_uid)s::text IS NULL OR transaction_uid = %(transaction_uid)s)
      AND (%(status)s::text IS NULL OR status = %(status)s)
      AND (%(before)s::timestamptz IS NULL OR coalesce(reported_time, accepted_time, requested_time) < %(before)s);

-- received --
-- First file of each study received in a span of time, with from and as whom.
SELECT t.study_instance_uid, i.calling_aet, i.called_aet, l.storage_id, l.storage_path, i.received_time
FROM (
    SELECT DISTINCT ON (s.study_fk) s.study_fk, o.pk
    FROM instance o JOIN series s ON s.pk = o.series_fk
    WHERE o.received_time >= %(since)s AND (%(until)s::timestamptz IS NULL OR o.received_time < %(until)s)
    ORDER BY s.study_fk, o.pk
) first JOIN instance i ON i.pk = first.pk JOIN study t ON t.pk = first.study_fk
JOIN LATERAL (SELECT storage_id, storage_path FROM location WHERE instance_fk = i.pk LIMIT 1) l ON true
ORDER BY i.pk DESC LIMIT %(limit)s;
