-- count_arrivals --
-- How many instances arrived for a forwarded C-MOVE.
SELECT count(*) FROM move_arrival WHERE forward_fk = %(forward_pk)s;

-- brings --
-- Whether a C-MOVE under way brings all objects of a series from an AE: the archive that was asked, or who stores for it.
SELECT EXISTS (
    SELECT FROM move_forward f
    WHERE f.ended_time IS NULL AND f.calling_aet = %(move_originator_aet)s
      AND f.message_id = %(move_originator_message_id)s
      AND (f.external_aet = %(calling_aet)s OR %(calling_aet)s = ANY (f.store_scu_aets))
      AND f.sop_instance_uids = '{}'
      AND forward_covers(f, jsonb_build_object('study_instance_uid', %(study)s::text, 'series_instance_uid',
                                               %(series)s::text, 'patient_id', %(patient_id)s::text))
      AND forward_is_alive(f));
