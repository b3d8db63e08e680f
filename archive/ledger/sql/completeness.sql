-- holdings --
-- Of each requested study, or series where series are given: what the index has and what is known of it.
SELECT w.study_instance_uid, w.series_instance_uid,
       (SELECT count(*) FROM series e JOIN instance i ON i.series_fk = e.pk
        WHERE e.study_fk = t.pk AND (w.series_instance_uid IS NULL OR e.series_instance_uid = w.series_instance_uid))
           AS instances,
       t.study_date, c.state, coalesce(c.failed_retrieves, 0) AS failed_retrieves,
       coalesce(EXISTS (SELECT FROM series e WHERE e.study_fk = t.pk AND e.created_time > c.updated_time
                            AND (w.series_instance_uid IS NULL OR e.series_instance_uid = w.series_instance_uid)), false)
           AS has_grown
FROM (SELECT s.uid AS study_instance_uid, e.uid AS series_instance_uid
      FROM unnest(%(studies)s::text[]) s (uid) LEFT JOIN unnest(%(series)s::text[]) e (uid) ON true) w
     LEFT JOIN study t ON t.study_instance_uid = w.study_instance_uid
     LEFT JOIN LATERAL (
         SELECT c.* FROM completeness c
         WHERE c.study_instance_uid = w.study_instance_uid
           AND CASE WHEN w.series_instance_uid IS NULL THEN true
                    ELSE c.series_instance_uid = w.series_instance_uid
                         OR (c.series_instance_uid = '' AND c.state = 'COMPLETE') END
         -- A series that is known to lack something makes its study lack it.
         ORDER BY CASE WHEN w.series_instance_uid IS NULL THEN
                           CASE c.state WHEN 'UNKNOWN' THEN 0 WHEN 'PARTIAL' THEN 1 ELSE 2 END
                       ELSE CASE c.series_instance_uid WHEN '' THEN 1 ELSE 0 END END,
                  c.series_instance_uid
         LIMIT 1) c ON true;

-- set_out --
-- A study is about to be fetched, as a whole or in part: until that has ended nothing is known of it.
INSERT INTO completeness (study_instance_uid, state)
SELECT uid, 'UNKNOWN' FROM unnest(%(studies)s::text[]) s (uid)
ON CONFLICT DO NOTHING
RETURNING study_instance_uid;

-- settle --
-- How complete a study or series is after it was fetched.
INSERT INTO completeness (study_instance_uid, series_instance_uid, state, failed_retrieves)
VALUES (%(study)s, %(series)s, %(state)s::text, (%(state)s::text = 'PARTIAL')::integer)
ON CONFLICT (study_instance_uid, series_instance_uid) DO UPDATE
SET state = excluded.state, updated_time = clock_timestamp(),
    failed_retrieves = CASE excluded.state WHEN 'COMPLETE' THEN 0
                       ELSE completeness.failed_retrieves + excluded.failed_retrieves END;

-- forget_series --
-- A study was fetched as a whole: what was known of its series does not matter any more.
DELETE FROM completeness WHERE study_instance_uid = %(study)s AND series_instance_uid <> '';

-- forget --
-- A fetch that brought nothing told nothing.
DELETE FROM completeness
WHERE study_instance_uid = ANY (%(studies)s) AND series_instance_uid = '' AND state = 'UNKNOWN';
