-- Index of what the archive holds, and the ledger of what has to be done with it.

CREATE TABLE patient (
    pk                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_id           text NOT NULL,
    issuer_of_patient_id text NOT NULL DEFAULT '',
    patient_name         text,
    patient_birth_date   text,
    patient_sex          text,
    created_time         timestamptz NOT NULL DEFAULT now()
);
-- Objects without a Patient ID get a patient of their own per study: nobody knows whether two such are the same person.
CREATE UNIQUE INDEX patient_identity ON patient (patient_id, issuer_of_patient_id) WHERE patient_id <> '';

CREATE TABLE study (
    pk                       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_fk               bigint NOT NULL REFERENCES patient,
    study_instance_uid       text NOT NULL UNIQUE,
    study_date               text,
    study_time               text,
    accession_number         text,
    study_id                 text,
    study_description        text,
    referring_physician_name text,
    created_time             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX study_patient ON study (patient_fk);

CREATE TABLE series (
    pk                                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_fk                            bigint NOT NULL REFERENCES study,
    series_instance_uid                 text NOT NULL,
    modality                            text,
    series_number                       text,
    series_description                  text,
    body_part_examined                  text,
    station_name                        text,
    performed_procedure_step_start_date text,
    performed_procedure_step_start_time text,
    sending_aet                         text,
    created_time                        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (study_fk, series_instance_uid)
);
CREATE INDEX series_uid ON series (series_instance_uid);

CREATE TABLE instance (
    pk                      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    series_fk               bigint NOT NULL REFERENCES series,
    sop_class_uid           text NOT NULL,
    sop_instance_uid        text NOT NULL UNIQUE,
    instance_number         text,
    content_date            text,
    content_time            text,
    number_of_frames        text,
    image_rows              integer,
    image_columns           integer,
    -- Grows when the object is replaced: deliveries are recorded per version.
    version                 integer NOT NULL DEFAULT 1,
    retrieve_aets           text[] NOT NULL DEFAULT '{}',
    availability            text NOT NULL DEFAULT 'ONLINE'
        CHECK (availability IN ('ONLINE', 'NEARLINE', 'OFFLINE', 'UNAVAILABLE')),
    external_retrieve_aet   text,
    calling_aet             text NOT NULL,
    called_aet              text NOT NULL,
    received_time           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX instance_series ON instance (series_fk);

CREATE TABLE location (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_fk         bigint NOT NULL REFERENCES instance ON DELETE CASCADE,
    storage_id          text NOT NULL,
    storage_path        text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    object_size         bigint NOT NULL CHECK (object_size > 0),
    dataset_offset      bigint NOT NULL CHECK (dataset_offset BETWEEN 0 AND object_size),
    digest              text NOT NULL,
    created_time        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (storage_id, storage_path)
);
CREATE INDEX location_instance ON location (instance_fk);

CREATE TABLE task_status (
    status   text PRIMARY KEY,
    is_final boolean NOT NULL
);
INSERT INTO task_status VALUES
    ('SCHEDULED', false), ('SCHEDULED FOR RETRY', false), ('IN PROCESS', false),
    ('COMPLETED', true), ('WARNING', true), ('FAILED', true), ('CANCELED', true);

-- The legal changes of status; the history refers to it, so an illegal one cannot be committed.
CREATE TABLE task_transition (
    from_status text NOT NULL REFERENCES task_status,
    to_status   text NOT NULL REFERENCES task_status,
    PRIMARY KEY (from_status, to_status)
);
INSERT INTO task_transition VALUES
    ('SCHEDULED', 'IN PROCESS'), ('SCHEDULED', 'CANCELED'), ('SCHEDULED', 'SCHEDULED'),
    ('SCHEDULED FOR RETRY', 'IN PROCESS'), ('SCHEDULED FOR RETRY', 'CANCELED'), ('SCHEDULED FOR RETRY', 'SCHEDULED'),
    ('IN PROCESS', 'COMPLETED'), ('IN PROCESS', 'WARNING'), ('IN PROCESS', 'FAILED'),
    ('IN PROCESS', 'SCHEDULED FOR RETRY'), ('IN PROCESS', 'CANCELED'),
    ('COMPLETED', 'SCHEDULED'), ('WARNING', 'SCHEDULED'), ('FAILED', 'SCHEDULED'), ('CANCELED', 'SCHEDULED');

CREATE TABLE task (
    pk                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                text NOT NULL
        CHECK (kind IN ('EXPORT', 'IAN', 'STGCMT_SCU', 'STGCMT_SCP', 'RETRIEVE', 'LEADING_CFIND')),
    queue_name          text NOT NULL,
    device_name         text NOT NULL,
    status              text NOT NULL DEFAULT 'SCHEDULED' REFERENCES task_status,
    created_time        timestamptz NOT NULL DEFAULT now(),
    updated_time        timestamptz NOT NULL DEFAULT now(),
    scheduled_time      timestamptz NOT NULL,
    start_time          timestamptz,
    end_time            timestamptz,
    attempt             integer NOT NULL DEFAULT 0,
    failures            integer NOT NULL DEFAULT 0,
    round               integer NOT NULL DEFAULT 1,
    -- Attempts up to this one came before an operator's reschedule: what was refused then is tried again.
    first_attempt       integer NOT NULL DEFAULT 0,
    -- Staged by a rule: what the exporter delivered before is left out, and arriving objects join it.
    follow_up_only      boolean NOT NULL DEFAULT false,
    cancel_requested    boolean NOT NULL DEFAULT false,
    -- Rescheduled while running: due again at this time once the worker has stopped.
    reschedule_time     timestamptz,
    -- Set while a hint of the present attempt is with the broker and no worker has claimed it.
    dispatched_time     timestamptz,
    -- A worker that does not renew it in time is taken for lost.
    lease_until         timestamptz,
    worker              text,
    batch_id            text,
    local_aet           text,
    remote_aet          text,
    exporter_id         text,
    study_instance_uid  text,
    -- NULL: the whole study (series).
    series_instance_uid text,
    sop_instance_uid    text,
    error_message       text,
    outcome_message     text,
    -- Who made the latest change, and why; copied into the history.
    actor               text,
    reason              text,
    CHECK ((status = 'IN PROCESS') = (lease_until IS NOT NULL)),
    CHECK (dispatched_time IS NULL OR status IN ('SCHEDULED', 'SCHEDULED FOR RETRY')),
    CHECK (NOT cancel_requested OR status = 'IN PROCESS'),
    CHECK (reschedule_time IS NULL OR cancel_requested),
    CHECK (kind <> 'EXPORT' OR (exporter_id IS NOT NULL AND study_instance_uid IS NOT NULL)),
    CHECK (sop_instance_uid IS NULL OR series_instance_uid IS NOT NULL)
) WITH (fillfactor = 80);
-- Dispatch: the earliest waiting task of each queue and destination, so that the tasks of a destination that is paused
-- are stepped over with one look, however many they are.
CREATE INDEX task_waiting ON task (device_name, queue_name, (coalesce(remote_aet, '')), scheduled_time, pk)
    WHERE status IN ('SCHEDULED', 'SCHEDULED FOR RETRY') AND dispatched_time IS NULL;
-- In flight: counts against dcmMaxTasksParallel.
CREATE INDEX task_in_flight ON task (device_name, queue_name)
    WHERE status = 'IN PROCESS' OR dispatched_time IS NOT NULL;
CREATE INDEX task_lease ON task (lease_until) WHERE status = 'IN PROCESS';
-- Coalescing: objects of one entity share one waiting rule-staged task per exporter.
CREATE UNIQUE INDEX task_coalesced_export
    ON task (exporter_id, study_instance_uid, coalesce(series_instance_uid, ''), coalesce(sop_instance_uid, ''))
    WHERE kind = 'EXPORT' AND status = 'SCHEDULED' AND follow_up_only;
-- A notification that was not yet attempted covers what is delivered until its first attempt.
CREATE UNIQUE INDEX task_coalesced_ian
    ON task (remote_aet, study_instance_uid, coalesce(exporter_id, ''))
    WHERE kind = 'IAN' AND status = 'SCHEDULED' AND follow_up_only;
-- Exports of overlapping entities to one destination do not run at the same time.
CREATE INDEX task_running_export ON task (exporter_id, study_instance_uid)
    WHERE kind = 'EXPORT' AND status = 'IN PROCESS';
CREATE INDEX task_study ON task (study_instance_uid);
CREATE INDEX task_batch ON task (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX task_updated ON task (updated_time, pk);
CREATE INDEX task_created ON task (created_time, pk);
CREATE INDEX task_scheduled ON task (scheduled_time, pk);
CREATE INDEX task_queue_status ON task (queue_name, status, updated_time, pk);
-- Small, for counts and for filters that match few tasks or none.
CREATE INDEX task_destination ON task (remote_aet, status);
CREATE INDEX task_exporter ON task (exporter_id, status);
CREATE INDEX task_kind ON task (kind, status);
-- Pages of one status in order, however few tasks are in it.
CREATE INDEX task_status_updated ON task (status, updated_time, pk);

CREATE TABLE export_task (
    task_fk       bigint PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    rule_name     text NOT NULL DEFAULT '',
    num_instances integer,
    modalities    text[]
);

CREATE TABLE ian_task (
    task_fk               bigint PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    retrieve_aets         text[] NOT NULL CHECK (cardinality(retrieve_aets) > 0),
    instance_availability text NOT NULL
        CHECK (instance_availability IN ('ONLINE', 'NEARLINE', 'OFFLINE', 'UNAVAILABLE')),
    retrieve_location_uid text,
    held_by_exporter      text,
    -- Fixed at the first attempt, so that a repeated N-CREATE carries the same bytes.
    sop_instance_uid      text,
    dataset               json,
    CHECK ((sop_instance_uid IS NULL) = (dataset IS NULL))
);

-- Queues of which nothing is handed over until an operator resumes them.
CREATE TABLE queue_pause (
    device_name text NOT NULL,
    queue_name  text NOT NULL,
    paused_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text NOT NULL,
    reason      text NOT NULL DEFAULT '',
    PRIMARY KEY (device_name, queue_name)
);

-- Destinations that somebody paused, or that did not let themselves be reached. The others have no row.
CREATE TABLE destination (
    device_name     text NOT NULL,
    remote_aet      text NOT NULL,
    -- By an operator.
    paused_time     timestamptz,
    actor           text,
    reason          text,
    -- By its circuit breaker: connection failures in a row, and since when only a C-ECHO is tried.
    failures        integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    local_aet       text,
    last_error      text,
    tripped_time    timestamptz,
    probes          integer NOT NULL DEFAULT 0,
    -- Moved on by whoever probes before it does so: one prober at a time, and another one if that one dies.
    next_probe_time timestamptz,
    PRIMARY KEY (device_name, remote_aet),
    CHECK ((paused_time IS NULL) = (actor IS NULL)),
    CHECK ((tripped_time IS NULL) = (next_probe_time IS NULL))
);

CREATE TABLE task_history (
    pk          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_fk     bigint NOT NULL REFERENCES task ON DELETE CASCADE,
    time        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- NULL: the status did not change (staged, cancel requested, rescheduled while waiting).
    from_status text,
    to_status   text NOT NULL REFERENCES task_status,
    attempt     integer NOT NULL,
    actor       text,
    reason      text,
    FOREIGN KEY (from_status, to_status) REFERENCES task_transition
);
CREATE INDEX task_history_task ON task_history (task_fk, pk);

-- What a task got acknowledged or refused, per instance. Outlives a purged task: it is what follow-ups build on.
CREATE TABLE delivery (
    task_fk          bigint NOT NULL,
    instance_fk      bigint NOT NULL REFERENCES instance ON DELETE CASCADE,
    instance_version integer NOT NULL,
    round            integer NOT NULL,
    exporter_id      text NOT NULL,
    remote_aet       text NOT NULL,
    delivered        boolean NOT NULL,
    -- Refused for a reason that another attempt cannot mend.
    permanent        boolean NOT NULL DEFAULT false,
    dimse_status     integer,
    message          text NOT NULL DEFAULT '',
    attempt          integer NOT NULL,
    time             timestamptz NOT NULL DEFAULT now(),
    -- False once a rule that exports every recurrence (ALWAYS) has met the object again.
    current          boolean NOT NULL DEFAULT true,
    PRIMARY KEY (task_fk, instance_fk)
);
CREATE INDEX delivery_instance ON delivery (instance_fk, exporter_id) WHERE delivered;
