-- load --
-- What an IAN task announces, and its N-CREATE if an attempt has fixed it.
SELECT retrieve_aets, instance_availability, retrieve_location_uid, held_by_exporter, mpps_sop_instance_uid,
       unavailable_sop_instance_uids, sop_instance_uids, sop_instance_uid, dataset::text
FROM ian_task WHERE task_fk = %(task_pk)s FOR UPDATE;

-- fix --
-- Fix the N-CREATE of an IAN task at its first attempt.
UPDATE ian_task SET sop_instance_uid = %(sop_instance_uid)s, dataset = %(dataset)s::json
WHERE task_fk = %(task_pk)s AND sop_instance_uid IS NULL;

-- announced --
-- What a notification that no exporter caused names: instances of its entity as available as they are, and rejected
-- ones, which are not available any more.
SELECT s.series_instance_uid, i.sop_class_uid, i.sop_instance_uid, i.availability, s.pk AS series_pk, i.pk AS instance_pk
FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
WHERE t.study_instance_uid = %(study)s
  AND (%(series)s::text IS NULL OR s.series_instance_uid = %(series)s)
  AND (%(sop)s::text IS NULL OR i.sop_instance_uid = %(sop)s)
  AND (%(sop_instance_uids)s::text[] = '{}' OR i.sop_instance_uid = ANY(%(sop_instance_uids)s::text[]))
UNION ALL
SELECT s.series_instance_uid, i.sop_class_uid, i.sop_instance_uid, 'UNAVAILABLE', s.pk, i.pk
FROM instance i JOIN series s ON s.pk = i.rejected_series_fk
WHERE i.sop_instance_uid = ANY(%(unavailable)s::text[])
ORDER BY series_pk, instance_pk;

-- due_studies --
-- Take studies whose quiet time is over.
DELETE FROM ian_trigger WHERE pk IN (
    SELECT pk FROM ian_trigger
    WHERE device_name = %(device_name)s AND mpps_fk IS NULL AND due_time <= clock_timestamp()
    ORDER BY due_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING stage_ians(jsonb_build_object('device_name', device_name, 'local_aet', local_aet, 'queue_name', queue_name,
                                        'destinations', destinations, 'retrieve_aets', retrieve_aets),
                     study_instance_uid, 'no more objects of the study came', '{}');

-- ready_procedure_steps --
-- Take procedure steps all of whose objects are here, or whose time is over; those lack nothing that may be announced.
-- Each study to which such objects belong gets notifications of its own.
WITH waiting AS (
    SELECT g.pk, coalesce(g.due_time <= clock_timestamp(), false) AS is_over,
           ARRAY(SELECT u FROM unnest(g.sop_instance_uids) u
                 JOIN instance i ON i.sop_instance_uid = u AND i.series_fk IS NOT NULL) AS here
    FROM ian_trigger g
    WHERE g.device_name = %(device_name)s AND g.mpps_fk IS NOT NULL
    ORDER BY g.pk LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM ian_trigger g USING waiting w, mpps m
    WHERE g.pk = w.pk AND m.pk = g.mpps_fk AND (w.is_over OR cardinality(w.here) = cardinality(g.sop_instance_uids))
    RETURNING g.*, w.here, m.sop_instance_uid AS mpps_uid
), produced AS (
    SELECT k.pk, t.study_instance_uid AS study, jsonb_agg(i.sop_instance_uid) AS uids
    FROM taken k JOIN instance i ON i.sop_instance_uid = ANY(k.here)
         JOIN series s ON s.pk = i.series_fk JOIN study t ON t.pk = s.study_fk
    WHERE cardinality(k.here) = cardinality(k.sop_instance_uids) OR k.on_timeout
    GROUP BY k.pk, t.pk, t.study_instance_uid
)
SELECT mpps_uid, cardinality(here), cardinality(sop_instance_uids),
       coalesce((SELECT sum(stage_ians(
                            jsonb_build_object('device_name', device_name, 'local_aet', local_aet,
                                               'queue_name', queue_name, 'destinations', destinations,
                                               'retrieve_aets', retrieve_aets),
                            p.study, 'procedure step completed',
                            jsonb_build_object('mpps_sop_instance_uid', mpps_uid, 'sop_instance_uids', p.uids)))
                 FROM produced p WHERE p.pk = taken.pk), 0)::integer
FROM taken;
