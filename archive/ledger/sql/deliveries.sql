-- instances_to_send --
-- Instances of the task's entity without those it delivered in this round or, for a follow-up, its exporter before,
-- and without those that were refused for good since the task was last scheduled.
SELECT i.pk AS instance_pk, i.version, i.sop_class_uid, i.sop_instance_uid, s.series_instance_uid, s.sending_aet,
       i.coercions, l.storage_id, l.storage_path, l.transfer_syntax_uid, l.object_size, l.dataset_offset, l.digest
FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
     LEFT JOIN LATERAL (SELECT * FROM location WHERE instance_fk = i.pk ORDER BY pk LIMIT 1) l ON true
WHERE t.study_instance_uid = %(study)s
  AND (%(series)s::text IS NULL OR s.series_instance_uid = %(series)s)
  AND (%(sop)s::text IS NULL OR i.sop_instance_uid = %(sop)s)
  AND NOT EXISTS (
      SELECT FROM delivery d
      WHERE d.instance_fk = i.pk AND d.delivered AND d.current AND d.instance_version = i.version
        AND ((d.task_fk = %(task_pk)s AND d.round = %(round)s)
             OR (%(follow_up_only)s AND d.exporter_id = %(exporter_id)s)))
  AND (%(refused_too)s OR NOT EXISTS (
      SELECT FROM delivery d JOIN task k ON k.pk = d.task_fk
      WHERE d.task_fk = %(task_pk)s AND d.instance_fk = i.pk AND d.permanent AND d.round = %(round)s
        AND d.instance_version = i.version AND d.attempt > k.first_attempt))
ORDER BY s.pk, i.pk;

-- record --
-- Note what the destination answered for one instance.
INSERT INTO delivery (task_fk, instance_fk, instance_version, round, exporter_id, remote_aet, delivered, permanent,
                      dimse_status, message, attempt)
SELECT %(task_pk)s, r.instance_pk, r.version, %(round)s, %(exporter_id)s, %(remote_aet)s, r.delivered,
       r.permanent, r.dimse_status, r.message, %(attempt)s
FROM unnest(%(instance_pks)s::bigint[], %(versions)s::integer[], %(delivered)s::boolean[],
            %(permanent)s::boolean[], %(dimse_statuses)s::integer[], %(messages)s::text[])
     AS r (instance_pk, version, delivered, permanent, dimse_status, message)
JOIN instance i ON i.pk = r.instance_pk
ON CONFLICT (task_fk, instance_fk) DO UPDATE SET
    instance_version = excluded.instance_version, round = excluded.round, delivered = excluded.delivered,
    permanent = excluded.permanent, dimse_status = excluded.dimse_status, message = excluded.message,
    attempt = excluded.attempt, time = excluded.time, current = true;

-- summary --
-- Counts of the task's present round.
SELECT count(*) FILTER (WHERE delivered),
       count(*) FILTER (WHERE delivered AND dimse_status <> 0),
       count(*) FILTER (WHERE NOT delivered),
       count(*) FILTER (WHERE permanent)
FROM delivery WHERE task_fk = %(task_pk)s AND round = %(round)s;

-- held_by --
-- The study's current instances that the exporter's destination acknowledged.
SELECT s.series_instance_uid, i.sop_class_uid, i.sop_instance_uid
FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE t.study_instance_uid = %(study)s
  AND EXISTS (SELECT FROM delivery d
              WHERE d.instance_fk = i.pk AND d.delivered AND d.instance_version = i.version
                AND d.exporter_id = %(exporter_id)s)
ORDER BY s.pk, i.pk;

-- note_extent --
-- How much an export task covers, for whoever looks at it.
UPDATE export_task SET num_instances = %(num_instances)s, modalities = (
    SELECT array_agg(DISTINCT s.modality) FROM series s JOIN study t ON t.pk = s.study_fk
    WHERE t.study_instance_uid = %(study)s AND s.modality IS NOT NULL
      AND (%(series)s::text IS NULL OR s.series_instance_uid = %(series)s))
WHERE task_fk = %(task_pk)s;

-- results --
-- Per-instance results of a task, newest first.
SELECT i.sop_instance_uid, d.delivered, d.dimse_status, d.message, d.attempt, d.time
FROM delivery d JOIN instance i ON i.pk = d.instance_fk
WHERE d.task_fk = %(task_pk)s ORDER BY d.time DESC, i.pk;
