-- Storage commitment as SCU and as SCP, triggers of notifications, procedure steps, rejected instances.

-- What an STGCMT_SCU task asks for.
CREATE TABLE stgcmt_task (
    task_fk          bigint PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    -- What that export delivered in that round; without it what the exporter delivered, or all of the entity.
    export_task_fk   bigint,
    export_round     integer,
    held_by_exporter text,
    -- Asks again for what is marked so of an earlier request.
    again_of_fk      bigint,
    rung             integer NOT NULL DEFAULT 1 CHECK (rung BETWEEN 1 AND 3),
    -- Tasks that follow once everything that the exporter delivered of the study is committed.
    after_committed  jsonb NOT NULL DEFAULT '[]',
    -- Nothing is asked any more: the task fails with these words, so that somebody sees it.
    verdict          text,
    CHECK ((export_task_fk IS NULL) = (export_round IS NULL))
);

-- A request for storage commitment that was, or may have been, sent.
CREATE TABLE commitment (
    pk                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid    text NOT NULL UNIQUE,
    task_fk            bigint NOT NULL,
    task_round         integer NOT NULL,
    device_name        text NOT NULL,
    local_aet          text NOT NULL,
    remote_aet         text NOT NULL,
    exporter_id        text,
    batch_id           text,
    study_instance_uid text NOT NULL,
    rung               integer NOT NULL,
    -- Retrieve AE Title to record for what is committed, whatever the report says.
    retrieve_aet       text,
    after_committed    jsonb NOT NULL DEFAULT '[]',
    status             text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'COMPLETED', 'WARNING', 'FAILED')),
    num_instances      integer NOT NULL,
    num_committed      integer NOT NULL DEFAULT 0,
    num_failed         integer NOT NULL DEFAULT 0,
    reports            integer NOT NULL DEFAULT 0,
    requested_time     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: the answer to the request was lost or has not come yet; its task sees to that.
    accepted_time      timestamptz,
    reported_time      timestamptz,
    -- When something is done about what is open; NULL: nothing is open, or it was done.
    deadline           timestamptz,
    escalated_time     timestamptz,
    CHECK (num_committed + num_failed <= num_instances)
);
CREATE INDEX commitment_deadline ON commitment (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX commitment_study ON commitment (study_instance_uid, exporter_id);
CREATE INDEX commitment_task ON commitment (task_fk);
CREATE INDEX commitment_open ON commitment (status, requested_time) WHERE status <> 'COMPLETED';

CREATE TABLE commitment_instance (
    commitment_fk    bigint NOT NULL REFERENCES commitment ON DELETE CASCADE,
    instance_fk      bigint NOT NULL REFERENCES instance ON DELETE CASCADE,
    instance_version integer NOT NULL,
    sop_instance_uid text NOT NULL,
    -- NULL: not reported.
    committed        boolean,
    failure_reason   integer,
    -- What was done about it when the request was due.
    step             text CHECK (step IN ('ASK AGAIN', 'RESEND', 'GIVE UP')),
    PRIMARY KEY (commitment_fk, instance_fk),
    CHECK ((failure_reason IS NOT NULL) = (committed IS FALSE))
) WITH (fillfactor = 80);
CREATE INDEX commitment_instance_instance ON commitment_instance (instance_fk);
CREATE INDEX commitment_instance_uid ON commitment_instance (commitment_fk, sop_instance_uid);

-- What an STGCMT_SCP task has to verify and report.
CREATE TABLE stgcmt_scp_task (
    task_fk           bigint PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    transaction_uid   text NOT NULL,
    sop_class_uids    text[] NOT NULL,
    sop_instance_uids text[] NOT NULL,
    num_failed        integer,
    CHECK (cardinality(sop_class_uids) = cardinality(sop_instance_uids))
);
CREATE INDEX stgcmt_scp_task_transaction ON stgcmt_scp_task (transaction_uid);

-- Modality performed procedure steps as they were received (PS3.4 Annex F).
CREATE TABLE mpps (
    pk                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sop_instance_uid   text NOT NULL UNIQUE,
    status             text NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
    calling_aet        text NOT NULL,
    called_aet         text NOT NULL,
    study_instance_uid text,
    -- DICOM JSON model (PS3.18 §F).
    attributes         jsonb NOT NULL,
    created_time       timestamptz NOT NULL DEFAULT now(),
    updated_time       timestamptz NOT NULL DEFAULT now()
);

-- Notifications that wait for a quiet study (mpps_fk NULL) or for the objects of a procedure step.
CREATE TABLE ian_trigger (
    pk                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_name        text NOT NULL,
    local_aet          text NOT NULL,
    queue_name         text NOT NULL,
    destinations       text[] NOT NULL CHECK (cardinality(destinations) > 0),
    retrieve_aets      text[] NOT NULL CHECK (cardinality(retrieve_aets) > 0),
    study_instance_uid text NOT NULL,
    mpps_fk            bigint UNIQUE REFERENCES mpps ON DELETE CASCADE,
    -- Instances that the procedure step produced.
    sop_instance_uids  text[] NOT NULL DEFAULT '{}',
    -- NULL: waits for the objects of the procedure step for ever.
    due_time           timestamptz,
    on_timeout         boolean NOT NULL DEFAULT true,
    created_time       timestamptz NOT NULL DEFAULT now(),
    CHECK (mpps_fk IS NOT NULL OR due_time IS NOT NULL)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ian_trigger_study ON ian_trigger (study_instance_uid) WHERE mpps_fk IS NULL;
CREATE INDEX ian_trigger_due ON ian_trigger (device_name, due_time);

-- What notifications of triggers name beyond those of exporters.
ALTER TABLE ian_task ADD COLUMN mpps_sop_instance_uid text;
ALTER TABLE ian_task ADD COLUMN unavailable_sop_instance_uids text[] NOT NULL DEFAULT '{}';
ALTER TABLE ian_task ADD COLUMN sop_instance_uids text[] NOT NULL DEFAULT '{}';

-- A rejected instance leaves its series, and a series without others its study: nothing that looks from a study down
-- (query, retrieve, export, notification) can see it, whoever wrote that query.
ALTER TABLE instance ALTER COLUMN series_fk DROP NOT NULL;
ALTER TABLE instance ADD COLUMN rejected_series_fk bigint REFERENCES series;
ALTER TABLE instance ADD COLUMN rejection_code text;
ALTER TABLE instance ADD COLUMN rejected_time timestamptz;
ALTER TABLE instance ADD CONSTRAINT instance_in_one_series CHECK ((series_fk IS NULL) = (rejected_series_fk IS NOT NULL));
CREATE INDEX instance_rejected_series ON instance (rejected_series_fk) WHERE rejected_series_fk IS NOT NULL;
ALTER TABLE series ALTER COLUMN study_fk DROP NOT NULL;
ALTER TABLE series ADD COLUMN rejected_study_fk bigint REFERENCES study;
ALTER TABLE series ADD CONSTRAINT series_in_one_study CHECK ((study_fk IS NULL) = (rejected_study_fk IS NOT NULL));
CREATE INDEX series_rejected_study ON series (rejected_study_fk) WHERE rejected_study_fk IS NOT NULL;
