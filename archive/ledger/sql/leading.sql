-- answer --
-- What is known of a study at a leading archive, unless it is too old.
SELECT attributes::text, error_message
FROM leading_answer
WHERE leading_aet = %(leading_aet)s AND study_instance_uid = %(study)s
  AND CASE WHEN attributes IS NULL THEN answered_time > now() - make_interval(secs => %(negative_s)s)
           ELSE %(stale_s)s::float8 IS NULL OR answered_time > now() - make_interval(secs => %(stale_s)s::float8) END;

-- touch --
-- Note that an answer was used; at most every few seconds, so that a hot one is not rewritten for each object.
UPDATE leading_answer SET used_time = now()
WHERE leading_aet = %(leading_aet)s AND study_instance_uid = %(study)s AND used_time < now() - interval '10 s';

-- demand --
-- Stage a query unless one is waiting or running.
INSERT INTO task (kind, queue_name, device_name, scheduled_time, local_aet, remote_aet, study_instance_uid, actor, reason)
VALUES ('LEADING_CFIND', %(queue_name)s, %(device_name)s, now(), %(local_aet)s, %(remote_aet)s, %(study)s,
        %(actor)s, %(reason)s)
ON CONFLICT (remote_aet, study_instance_uid)
    WHERE kind = 'LEADING_CFIND' AND status IN ('SCHEDULED', 'SCHEDULED FOR RETRY', 'IN PROCESS')
    DO NOTHING
RETURNING pk;

-- hasten --
-- Make a query that waits for its retry due at once: somebody wants the answer now.
UPDATE task SET scheduled_time = now(), updated_time = now(), actor = %(actor)s, reason = 'asked for again'
WHERE kind = 'LEADING_CFIND' AND remote_aet = %(remote_aet)s AND study_instance_uid = %(study)s
  AND status = 'SCHEDULED FOR RETRY' AND scheduled_time > now() AND dispatched_time IS NULL
RETURNING pg_notify('dicomq_task', '');

-- record --
-- Keep an answer (or that there is none) and tell those who wait for it.
WITH kept AS (
    INSERT INTO leading_answer (leading_aet, study_instance_uid, attributes, error_message)
    VALUES (%(leading_aet)s, %(study)s, %(attributes)s::jsonb, %(error_message)s)
    ON CONFLICT (leading_aet, study_instance_uid) DO UPDATE
    SET attributes = excluded.attributes, error_message = excluded.error_message, answered_time = now()
    RETURNING 1
)
SELECT pg_notify('dicomq_leading', %(leading_aet)s || ' ' || %(study)s) FROM kept;

-- evict --
-- Drop the answers that were not used for longest, beyond a number of them.
DELETE FROM leading_answer
WHERE ctid IN (SELECT ctid FROM leading_answer ORDER BY used_time DESC OFFSET %(size)s);

-- expire --
-- Drop answers that are too old to be used.
DELETE FROM leading_answer
WHERE answered_time < now() - make_interval(secs => greatest(%(stale_s)s::float8, 0));

-- mark_pending --
-- Note that a received object still has to be coerced.
INSERT INTO coercion_pending (instance_fk, leading_aet, study_instance_uid, policy)
SELECT pk, %(leading_aet)s, %(study)s, %(policy)s FROM instance WHERE sop_instance_uid = %(sop)s
ON CONFLICT (instance_fk, leading_aet) DO UPDATE SET policy = excluded.policy;

-- pending --
-- Received objects of a study that still have to be coerced, with the newest copy of each.
SELECT p.instance_fk, p.policy, i.coercions::text, i.calling_aet, l.storage_id, l.storage_path, l.transfer_syntax_uid,
       l.object_size, l.dataset_offset, l.digest
FROM coercion_pending p JOIN instance i ON i.pk = p.instance_fk
     JOIN LATERAL (SELECT * FROM location l WHERE l.instance_fk = i.pk ORDER BY l.pk DESC LIMIT 1) l ON true
WHERE p.leading_aet = %(leading_aet)s AND p.study_instance_uid = %(study)s
ORDER BY p.instance_fk LIMIT %(limit)s;

-- settle --
-- Keep what coercion changed in a received object, which is pending no more.
WITH settled AS (
    DELETE FROM coercion_pending WHERE instance_fk = %(instance_pk)s AND leading_aet = %(leading_aet)s
)
UPDATE instance SET coercions = %(coercions)s::jsonb WHERE pk = %(instance_pk)s;

-- drop_pending --
-- The leading archive does not know the study: nothing is coerced.
DELETE FROM coercion_pending WHERE leading_aet = %(leading_aet)s AND study_instance_uid = %(study)s;

-- set_coercions --
-- Keep what coercion changed in an object that was just received.
UPDATE instance SET coercions = %(coercions)s::jsonb WHERE sop_instance_uid = %(sop)s;

-- recorded --
-- What coercion changed in objects when they were received.
SELECT pk, coercions::text FROM instance WHERE pk = ANY(%(instance_pks)s) AND coercions IS NOT NULL;

-- reindex --
-- Bring coerced attributes of patient and study into the index.
SELECT reindex_study(%(study)s, %(attributes)s::jsonb);
