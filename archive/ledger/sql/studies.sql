-- page --
-- Studies, the latest received first.
SELECT t.pk, t.study_instance_uid, p.patient_id, p.patient_name, t.study_date, t.study_time, t.accession_number,
       t.study_description,
       ARRAY(SELECT DISTINCT s.modality FROM series s
             WHERE s.study_fk = t.pk AND s.modality IS NOT NULL ORDER BY s.modality) AS modalities,
       (SELECT count(*) FROM series s WHERE s.study_fk = t.pk) AS num_series,
       (SELECT count(*) FROM series s JOIN instance i ON i.series_fk = s.pk WHERE s.study_fk = t.pk) AS num_instances,
       t.created_time
FROM study t JOIN patient p ON p.pk = t.patient_fk
WHERE {conditions} ORDER BY t.pk DESC LIMIT %(limit)s;

-- count --
-- How many studies match.
SELECT count(*) FROM study t JOIN patient p ON p.pk = t.patient_fk WHERE {conditions};

-- series --
-- Series of a study in order of reception.
SELECT s.series_instance_uid, s.modality, s.series_number, s.series_description,
       (SELECT count(*) FROM instance i WHERE i.series_fk = s.pk) AS num_instances
FROM study t JOIN series s ON s.study_fk = t.pk
WHERE t.study_instance_uid = %(study)s ORDER BY s.pk;

-- holdings --
-- How many of the study's current instances each exporter's destination acknowledged, and when it last did.
SELECT d.exporter_id, d.remote_aet, count(DISTINCT d.instance_fk), max(d.time)
FROM study t JOIN series s ON s.study_fk = t.pk JOIN instance i ON i.series_fk = s.pk
     JOIN delivery d ON d.instance_fk = i.pk AND d.delivered AND d.instance_version = i.version
WHERE t.study_instance_uid = %(study)s
GROUP BY d.exporter_id, d.remote_aet ORDER BY d.exporter_id, d.remote_aet;
