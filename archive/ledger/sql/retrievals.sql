-- stage --
-- A C-MOVE came in: its task, and how many instances it matches.
SELECT stage_retrieve(%(x)s::jsonb);

-- stage_requested --
-- Ask another archive, unless that is being done already.
SELECT task_pk, is_new FROM stage_requested_retrieve(%(x)s::jsonb);

-- count_matches --
-- How many instances an identifier covers.
SELECT count(*) FROM retrieve_scope(%(studies)s, %(series)s, %(sops)s, %(patient_id)s, %(issuer)s);

-- get --
-- What a retrieve asks for.
SELECT role, retrieve_level, patient_id, issuer_of_patient_id, study_instance_uids, series_instance_uids,
       sop_instance_uids, destination_aet, move_originator_aet, move_originator_message_id, priority
FROM retrieve_task WHERE task_fk = %(task_pk)s;

-- extents --
-- Where some retrieves bring their objects, and how far they are.
SELECT task_fk, destination_aet, remaining, completed, failed, warning, status, error_comment
FROM retrieve_task WHERE task_fk = ANY(%(task_pks)s);

-- progress --
-- How far a retrieve is.
SELECT t.status AS task_status, t.attempt, r.remaining, r.completed, r.failed, r.warning, r.status,
       coalesce(r.error_comment, '') AS error_comment, r.failed_sop_instance_uids, t.error_message
FROM task t JOIN retrieve_task r ON r.task_fk = t.pk WHERE t.pk = %(task_pk)s;

-- matches --
-- The instances that an identifier covers, each with a file on one of this device's storages if there is one.
SELECT i.pk AS instance_pk, i.version, i.sop_class_uid, i.sop_instance_uid, m.series_instance_uid,
       m.study_instance_uid, m.sending_aet, i.external_retrieve_aet, i.coercions, l.storage_id, l.storage_path,
       l.transfer_syntax_uid, l.object_size, l.dataset_offset, l.digest,
       l.pk IS NULL AND EXISTS (SELECT FROM location e WHERE e.instance_fk = i.pk) AS is_elsewhere
FROM retrieve_scope(%(studies)s, %(series)s, %(sops)s, %(patient_id)s, %(issuer)s) m JOIN instance i ON i.pk = m.instance_pk
     LEFT JOIN LATERAL (
         SELECT * FROM location c WHERE c.instance_fk = i.pk AND c.storage_id = ANY (%(storages)s)
         ORDER BY c.pk LIMIT 1) l ON true
ORDER BY m.study_instance_uid, m.series_instance_uid, i.pk;

-- begin --
-- Forget what an earlier attempt counted.
UPDATE retrieve_task r
SET remaining = NULL, completed = 0, failed = 0, warning = 0, status = NULL, error_comment = NULL,
    failed_sop_instance_uids = '{}'
FROM task t
WHERE r.task_fk = t.pk AND t.pk = %(task_pk)s AND t.attempt = %(attempt)s AND t.status = 'IN PROCESS'
RETURNING r.task_fk;

-- note --
-- Write counters and, at the end, status down; nothing once the claim is lost.
WITH noted AS (
    UPDATE retrieve_task r
    SET remaining = %(remaining)s, completed = %(completed)s, failed = %(failed)s, warning = %(warning)s,
        status = %(status)s, error_comment = %(error_comment)s, failed_sop_instance_uids = %(failed_uids)s,
        responses = responses + 1
    FROM task t
    WHERE r.task_fk = t.pk AND t.pk = %(task_pk)s AND t.attempt = %(attempt)s AND t.status = 'IN PROCESS'
    RETURNING t.pk)
SELECT pg_notify('dicomq_retrieve', pk::text) FROM noted;

-- register_forward --
-- Announce a C-MOVE that brings objects here, or join one that does.
SELECT forward_pk, move_message_id, is_leader FROM register_forward(%(task_pk)s, %(attempt)s, %(x)s::jsonb);

-- arrivals --
-- Instances that arrived for a forwarded C-MOVE after the one numbered `after`.
SELECT a.pk AS arrival_pk, i.pk AS instance_pk, i.version, i.sop_class_uid, i.sop_instance_uid, s.series_instance_uid,
       t.study_instance_uid, s.sending_aet, i.coercions, l.storage_id, l.storage_path, l.transfer_syntax_uid, l.object_size,
       l.dataset_offset, l.digest
FROM move_arrival a JOIN instance i ON i.pk = a.instance_fk JOIN series s ON s.pk = i.series_fk
     JOIN study t ON t.pk = s.study_fk
     LEFT JOIN LATERAL (SELECT * FROM location c WHERE c.instance_fk = i.pk ORDER BY c.pk LIMIT 1) l ON true
WHERE a.forward_fk = %(forward_pk)s AND a.pk > %(after)s
ORDER BY a.pk;

-- note_forward --
-- The other archive's latest response.
UPDATE move_forward
SET remaining = %(remaining)s, completed = %(completed)s, failed = %(failed)s, warning = %(warning)s
WHERE pk = %(forward_pk)s AND ended_time IS NULL;

-- end_forward --
-- A forwarded C-MOVE is over: with the other archive's final response, or given up (status NULL).
WITH ended AS (
    UPDATE move_forward
    SET ended_time = clock_timestamp(), remaining = 0, completed = %(completed)s, failed = %(failed)s,
        warning = %(warning)s, status = %(status)s, error_comment = %(error_comment)s,
        failed_sop_instance_uids = %(failed_uids)s
    WHERE pk = %(forward_pk)s AND ended_time IS NULL
    RETURNING pk)
SELECT pg_notify('dicomq_arrival', pk::text) FROM ended;

-- forward_state --
-- How a forwarded C-MOVE stands, for those who joined it.
SELECT f.ended_time IS NOT NULL AS ended, forward_is_alive(f) AS alive, f.remaining, f.completed, f.failed, f.warning,
       f.status, f.error_comment, f.failed_sop_instance_uids, f.entity_key
FROM move_forward f WHERE f.pk = %(forward_pk)s;

-- purge_study --
-- Drop the local copies of a study.
SELECT refusal, purged, files FROM purge_study(%(study)s, %(external_aet)s, %(force)s);

-- studies_matching --
-- Studies with local files that fit a filter.
SELECT t.study_instance_uid FROM study t JOIN patient p ON p.pk = t.patient_fk
WHERE (%(patient_id)s::text IS NULL OR p.patient_id = %(patient_id)s)
  AND (%(patient_name)s::text IS NULL OR starts_with(lower(p.patient_name), lower(%(patient_name)s)))
  AND (%(accession_number)s::text IS NULL OR t.accession_number = %(accession_number)s)
  AND (%(modality)s::text IS NULL
       OR EXISTS (SELECT FROM series m WHERE m.study_fk = t.pk AND m.modality = %(modality)s))
  AND (%(study_date_from)s::text IS NULL OR t.study_date >= %(study_date_from)s)
  AND (%(study_date_to)s::text IS NULL OR t.study_date <= %(study_date_to)s)
  AND (%(older_than_s)s::float8 IS NULL OR t.created_time < now() - make_interval(secs => %(older_than_s)s))
  AND EXISTS (SELECT FROM series s JOIN instance i ON i.series_fk = s.pk JOIN location l ON l.instance_fk = i.pk
              WHERE s.study_fk = t.pk)
ORDER BY t.pk;
