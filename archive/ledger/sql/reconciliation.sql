-- study --
-- When a study came, and how many instances of it are in use and rejected.
SELECT t.created_time,
       (SELECT count(*) FROM series s JOIN instance i ON i.series_fk = s.pk WHERE s.study_fk = t.pk),
       (SELECT count(*) FROM series s JOIN instance i ON i.rejected_series_fk = s.pk
        WHERE t.pk IN (s.study_fk, s.rejected_study_fk))
FROM study t WHERE t.study_instance_uid = %(study)s;

-- instances --
-- How far each instance in use came on its way to each exporter's destination.
WITH present AS MATERIALIZED (
    SELECT i.pk, i.version, i.sop_instance_uid, s.series_instance_uid
    FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
    WHERE t.study_instance_uid = %(study)s
), exporter AS (
    SELECT exporter_id, max(remote_aet) AS remote_aet
    FROM (SELECT exporter_id, remote_aet FROM task WHERE kind = 'EXPORT' AND study_instance_uid = %(study)s
          UNION ALL
          SELECT d.exporter_id, d.remote_aet FROM delivery d JOIN present i ON i.pk = d.instance_fk) known
    GROUP BY exporter_id
)
SELECT e.exporter_id, e.remote_aet, i.sop_instance_uid, d.delivered, d.dimse_status, d.message,
       c.remote_aet AS commitment_aet, c.committed, c.failure_reason, c.step
FROM exporter e CROSS JOIN present i
     LEFT JOIN LATERAL (
         SELECT v.delivered, v.dimse_status, v.message FROM delivery v
         WHERE v.instance_fk = i.pk AND v.exporter_id = e.exporter_id AND v.instance_version = i.version
         ORDER BY v.delivered DESC, v.time DESC LIMIT 1) d ON true
     LEFT JOIN LATERAL (
         SELECT k.remote_aet, o.committed, o.failure_reason, o.step
         FROM commitment_instance o JOIN commitment k ON k.pk = o.commitment_fk
         WHERE o.instance_fk = i.pk AND o.instance_version = i.version AND k.exporter_id = e.exporter_id
         ORDER BY o.committed IS NOT NULL DESC, k.reported_time DESC, k.pk DESC LIMIT 1) c ON true
WHERE d.delivered IS NOT NULL OR EXISTS (
    SELECT FROM task x
    WHERE x.kind = 'EXPORT' AND x.study_instance_uid = %(study)s AND x.exporter_id = e.exporter_id
      AND x.status <> 'CANCELED'
      AND (x.series_instance_uid IS NULL OR x.series_instance_uid = i.series_instance_uid)
      AND (x.sop_instance_uid IS NULL OR x.sop_instance_uid = i.sop_instance_uid))
ORDER BY e.exporter_id, i.pk;

-- tasks --
-- The latest task of each kind for each exporter and destination of a study.
SELECT DISTINCT ON (exporter_id, kind, remote_aet) exporter_id, kind, remote_aet, status,
       coalesce(error_message, outcome_message, '')
FROM task WHERE study_instance_uid = %(study)s AND kind IN ('EXPORT', 'IAN', 'STGCMT_SCU')
ORDER BY exporter_id, kind, remote_aet, pk DESC;

-- notified --
-- Which instances were announced to whom, by exporter (NULL: not because of one).
SELECT DISTINCT t.exporter_id, t.remote_aet, u #>> '{}'
FROM task t JOIN ian_task n ON n.task_fk = t.pk
     CROSS JOIN LATERAL jsonb_path_query(
         n.dataset::jsonb, '$."00081115".Value[*]."00081199".Value[*]."00081155".Value[0]') u
WHERE t.kind = 'IAN' AND t.study_instance_uid = %(study)s AND t.status = 'COMPLETED';

-- incomplete --
-- Studies for which something is not done, the oldest first.
WITH undone AS (
    SELECT study_instance_uid,
           count(*) FILTER (WHERE status NOT IN ('FAILED', 'WARNING')) AS waiting,
           count(*) FILTER (WHERE status IN ('FAILED', 'WARNING')) AS failed
    FROM task
    WHERE kind IN ('EXPORT', 'IAN', 'STGCMT_SCU') AND status NOT IN ('COMPLETED', 'CANCELED')
    GROUP BY study_instance_uid
), uncommitted AS (
    SELECT c.study_instance_uid, count(DISTINCT o.instance_fk) AS instances
    FROM commitment c JOIN commitment_instance o ON o.commitment_fk = c.pk
         JOIN instance i ON i.pk = o.instance_fk AND i.version = o.instance_version AND i.series_fk IS NOT NULL
    WHERE c.status <> 'COMPLETED' AND o.committed IS NOT TRUE AND NOT is_committed(i.pk, i.version, c.remote_aet)
    GROUP BY c.study_instance_uid
)
SELECT t.study_instance_uid, t.created_time, coalesce(u.waiting, 0), coalesce(u.failed, 0), coalesce(c.instances, 0)
FROM undone u FULL JOIN uncommitted c USING (study_instance_uid)
     JOIN study t ON t.study_instance_uid = coalesce(u.study_instance_uid, c.study_instance_uid)
WHERE t.created_time <= clock_timestamp() - make_interval(secs => %(older_than_s)s)
ORDER BY t.created_time, t.pk LIMIT %(limit)s;
