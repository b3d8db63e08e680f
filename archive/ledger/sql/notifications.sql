-- load --
-- What an IAN task announces, and its N-CREATE if an attempt has fixed it.
SELECT retrieve_aets, instance_availability, retrieve_location_uid, held_by_exporter, sop_instance_uid, dataset::text
FROM ian_task WHERE task_fk = %(task_pk)s FOR UPDATE;

-- fix --
-- Fix the N-CREATE of an IAN task at its first attempt.
UPDATE ian_task SET sop_instance_uid = %(sop_instance_uid)s, dataset = %(dataset)s::json
WHERE task_fk = %(task_pk)s AND sop_instance_uid IS NULL;
