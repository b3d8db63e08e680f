-- find_patient --
-- Matching patients.
SELECT {columns} FROM patient WHERE {conditions} {limit}

-- find_study --
-- Matching studies with their patients.
SELECT {columns} FROM study JOIN patient ON patient.pk = study.patient_fk WHERE {conditions} {limit}

-- find_series --
-- Matching series with study and patient.
SELECT {columns}
FROM series JOIN study ON study.pk = series.study_fk JOIN patient ON patient.pk = study.patient_fk
WHERE {conditions} {limit}

-- find_image --
-- Matching instances with series, study and patient.
SELECT {columns}
FROM instance JOIN series ON series.pk = instance.series_fk JOIN study ON study.pk = series.study_fk
     JOIN patient ON patient.pk = study.patient_fk
WHERE {conditions} {limit}

-- count --
-- How many match, counted up to a limit.
SELECT count(*) FROM ({find}) AS found

-- bounds --
-- Bounds of a statement that a peer's keys shape; compiling plans costs more than such statements take, and a plan for
-- any pattern is a poor one for a name's beginning.
SET LOCAL statement_timeout = '120s'; SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan

-- any_of --
{column} = ANY({values})

-- like --
{column} LIKE {value}

-- folded_like --
lower({column}) LIKE {value}

-- any_number --
CASE WHEN {column}::text ~ '^\s*[+-]?[0-9]{{1,12}}\s*$' THEN {column}::bigint = ANY({values}) ELSE false END

-- at_least --
{column} COLLATE "C" >= {value}

-- at_most --
{column} COLLATE "C" <= {value}

-- moment_at_least --
({date} COLLATE "C", coalesce({time}, '') COLLATE "C") >= ({low_date}, {low_time})

-- moment_at_most --
({date} COLLATE "C", coalesce({time}, '') COLLATE "C") <= ({high_date}, {high_time})

-- name_like_1 --
name_group({column}, 1) LIKE {value}

-- name_like_2 --
(name_group({column}, 2) LIKE {value} AND name_group({column}, 2) <> '')

-- name_like_3 --
(name_group({column}, 3) LIKE {value} AND name_group({column}, 3) <> '')

-- json_match --
({column} @? {value}::jsonpath AND {column} IS NOT NULL)

-- below_modalities --
EXISTS (SELECT FROM series s WHERE s.study_fk = study.pk AND s.modality LIKE {value})

-- below_sop_classes --
EXISTS (SELECT FROM series s JOIN instance i ON i.series_fk = s.pk
        WHERE s.study_fk = study.pk AND i.sop_class_uid LIKE {value})

-- patient_studies --
(SELECT count(*) FROM study t WHERE t.patient_fk = patient.pk)

-- patient_series --
(SELECT count(*) FROM study t JOIN series s ON s.study_fk = t.pk WHERE t.patient_fk = patient.pk)

-- patient_instances --
(SELECT count(*) FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
 WHERE t.patient_fk = patient.pk)

-- study_series --
(SELECT count(*) FROM series s WHERE s.study_fk = study.pk)

-- study_instances --
(SELECT count(*) FROM series s JOIN instance i ON i.series_fk = s.pk WHERE s.study_fk = study.pk)

-- series_instances --
(SELECT count(*) FROM instance i WHERE i.series_fk = series.pk)

-- modalities --
ARRAY(SELECT DISTINCT s.modality FROM series s WHERE s.study_fk = study.pk AND s.modality IS NOT NULL ORDER BY 1)

-- sop_classes --
ARRAY(SELECT DISTINCT i.sop_class_uid FROM series s JOIN instance i ON i.series_fk = s.pk
      WHERE s.study_fk = study.pk ORDER BY 1)

-- retrieve_aets_study --
-- Every set of AEs from which some instance of the study can be retrieved.
ARRAY(SELECT DISTINCT array_to_string(i.retrieve_aets || i.external_retrieve_aet, E'\\')
      FROM series s JOIN instance i ON i.series_fk = s.pk WHERE s.study_fk = study.pk)

-- retrieve_aets_series --
ARRAY(SELECT DISTINCT array_to_string(i.retrieve_aets || i.external_retrieve_aet, E'\\')
      FROM instance i WHERE i.series_fk = series.pk)

-- retrieve_aets_image --
ARRAY[array_to_string(instance.retrieve_aets || instance.external_retrieve_aet, E'\\')]

-- availability_study --
-- The worst of the instances; those that are not online are few and have an index of their own.
coalesce((SELECT (ARRAY['NEARLINE', 'OFFLINE', 'UNAVAILABLE'])[
                     max(array_position(ARRAY['NEARLINE', 'OFFLINE', 'UNAVAILABLE'], i.availability))]
          FROM series s JOIN instance i ON i.series_fk = s.pk AND i.availability <> 'ONLINE'
          WHERE s.study_fk = study.pk), 'ONLINE')

-- availability_series --
coalesce((SELECT (ARRAY['NEARLINE', 'OFFLINE', 'UNAVAILABLE'])[
                     max(array_position(ARRAY['NEARLINE', 'OFFLINE', 'UNAVAILABLE'], i.availability))]
          FROM instance i WHERE i.series_fk = series.pk AND i.availability <> 'ONLINE'), 'ONLINE')

-- availability_image --
instance.availability
