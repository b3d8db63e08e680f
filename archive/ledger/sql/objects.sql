-- store_object --
-- Index an object and stage its exports; see the function of that name.
SELECT kind, instance_pk, obsolete, staged, patient_conflict
FROM store_object(%(attributes)s::jsonb, %(file)s::jsonb, %(reception)s::jsonb, %(policy)s::jsonb, %(intents)s::jsonb);

-- known_paths --
-- Which of the given paths of a storage belong to an object.
SELECT storage_path FROM location WHERE storage_id = %(storage_id)s AND storage_path = ANY(%(paths)s);

-- recent_paths --
-- Paths recorded on a storage since an instant, for the check at start that no row lacks its file.
SELECT l.storage_path, i.sop_instance_uid
FROM location l JOIN instance i ON i.pk = l.instance_fk
WHERE l.storage_id = %(storage_id)s AND l.created_time >= now() - make_interval(secs => %(within_s)s)
ORDER BY l.pk;

-- instance_references --
-- The current instances of a study, series or object in order of reception.
SELECT s.series_instance_uid, i.sop_class_uid, i.sop_instance_uid
FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE t.study_instance_uid = %(study)s
  AND (%(series)s::text IS NULL OR s.series_instance_uid = %(series)s)
  AND (%(sop)s::text IS NULL OR i.sop_instance_uid = %(sop)s)
ORDER BY s.pk, i.pk;

-- count_instances --
-- How many instances the archive holds of a study.
SELECT count(*) FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE t.study_instance_uid = %(study)s;
