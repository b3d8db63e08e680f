-- store_object --
-- Index an object and stage its exports; see the function of that name.
SELECT kind, instance_pk, obsolete, staged, patient_conflict
FROM store_object(%(attributes)s::jsonb, %(file)s::jsonb, %(reception)s::jsonb, %(policy)s::jsonb, %(intents)s::jsonb);

-- series_rows --
-- The rows of a series, of its study and of its patient, whose Patient ID never changes.
SELECT s.pk, t.pk, q.pk, q.patient_id
FROM study t JOIN series s ON s.study_fk = t.pk JOIN patient q ON q.pk = t.patient_fk
WHERE t.study_instance_uid = %(study)s AND s.series_instance_uid = %(series)s;

-- index_in_series --
-- Index a new object of a known series; see the function of that name.
SELECT index_in_series(%(series_pk)s, %(study_pk)s, %(patient_pk)s, %(patient_id)s, %(study_instance_uid)s,
    %(series_instance_uid)s, %(sop_class_uid)s, %(sop_instance_uid)s, %(instance_number)s, %(content_date)s,
    %(content_time)s, %(number_of_frames)s, %(rows)s, %(columns)s, %(further)s, %(retrieve_aets)s, %(availability)s,
    %(calling_aet)s, %(called_aet)s, %(storage_id)s, %(storage_path)s, %(transfer_syntax_uid)s, %(object_size)s,
    %(dataset_offset)s, %(digest)s, %(intents)s, %(announcements)s, %(move_originator_aet)s,
    %(move_originator_message_id)s);

-- known_paths --
-- Which of the given paths of a storage belong to an object.
SELECT storage_path FROM location WHERE storage_id = %(storage_id)s AND storage_path = ANY(%(paths)s);

-- obsolete_files --
-- Files of replaced objects on a storage that were not deleted, unless another object has their path now.
SELECT o.storage_id, o.storage_path, o.transfer_syntax_uid, o.object_size, o.dataset_offset, o.digest
FROM obsolete_file o
WHERE o.storage_id = %(storage_id)s
  AND NOT EXISTS (SELECT FROM location l WHERE l.storage_id = o.storage_id AND l.storage_path = o.storage_path)
ORDER BY o.replaced_time;

-- forget_obsolete --
-- The file of a replaced object is deleted.
DELETE FROM obsolete_file WHERE storage_id = %(storage_id)s AND storage_path = %(storage_path)s;

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

-- instance_files --
-- The copies of an object.
SELECT l.storage_id, l.storage_path, l.transfer_syntax_uid, l.object_size, l.dataset_offset, l.digest
FROM location l WHERE l.instance_fk = %(instance)s
ORDER BY l.pk;

-- count_instances --
-- How many instances the archive holds of a study.
SELECT count(*) FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE t.study_instance_uid = %(study)s;
