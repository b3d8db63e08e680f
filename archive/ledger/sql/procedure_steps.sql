-- create --
-- Take a procedure step in; no row: there is one of that SOP Instance UID already.
INSERT INTO mpps (sop_instance_uid, status, calling_aet, called_aet, study_instance_uid, attributes)
VALUES (%(sop_instance_uid)s, 'IN PROGRESS', %(calling_aet)s, %(called_aet)s, %(study_instance_uid)s,
        %(attributes)s::jsonb)
ON CONFLICT (sop_instance_uid) DO NOTHING
RETURNING pk;

-- lock --
-- Status of a procedure step, held until the end of the transaction.
SELECT status FROM mpps WHERE sop_instance_uid = %(sop_instance_uid)s FOR UPDATE;

-- set --
-- Change a procedure step; attributes that were there are replaced.
UPDATE mpps SET attributes = attributes || %(attributes)s::jsonb, updated_time = now(),
    status = coalesce(%(status)s, status), study_instance_uid = coalesce(%(study_instance_uid)s, study_instance_uid)
WHERE sop_instance_uid = %(sop_instance_uid)s
RETURNING pk, study_instance_uid, attributes;

-- wait_for_objects --
-- Announce a completed procedure step once its objects are here.
INSERT INTO ian_trigger (device_name, local_aet, queue_name, destinations, retrieve_aets, study_instance_uid, mpps_fk,
                         sop_instance_uids, due_time, on_timeout)
VALUES (%(device_name)s, %(local_aet)s, %(queue_name)s, %(destinations)s, %(retrieve_aets)s, %(study_instance_uid)s,
        %(mpps_pk)s, %(sop_instance_uids)s, clock_timestamp() + make_interval(secs => %(timeout_s)s::float8),
        %(on_timeout)s)
ON CONFLICT (mpps_fk) DO NOTHING;

-- get --
-- A procedure step.
SELECT sop_instance_uid, status, calling_aet, called_aet, study_instance_uid, attributes, created_time, updated_time
FROM mpps WHERE sop_instance_uid = %(sop_instance_uid)s;
