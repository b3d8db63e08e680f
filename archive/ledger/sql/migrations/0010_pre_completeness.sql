-- What is known of studies and series that were fetched from the fallback archive (dcmFallbackCMoveSCP).

CREATE TABLE completeness (
    study_instance_uid  text NOT NULL,
    -- '' for the study as a whole.
    series_instance_uid text NOT NULL DEFAULT '',
    state               text NOT NULL CHECK (state IN ('UNKNOWN', 'PARTIAL', 'COMPLETE')),
    failed_retrieves    integer NOT NULL DEFAULT 0,
    updated_time        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (study_instance_uid, series_instance_uid)
);
