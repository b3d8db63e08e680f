-- Retrieves: what a RETRIEVE task asks for and how far it came; C-MOVE requests forwarded to other archives.

CREATE TABLE retrieve_task (
    task_fk                    bigint PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    -- SCP: a C-MOVE-RQ came in, this archive has to deliver. SCU: this archive asks another one.
    role                       text NOT NULL CHECK (role IN ('SCP', 'SCU')),
    retrieve_level             text NOT NULL CHECK (retrieve_level IN ('PATIENT', 'STUDY', 'SERIES', 'IMAGE')),
    patient_id                 text,
    issuer_of_patient_id       text,
    study_instance_uids        text[] NOT NULL DEFAULT '{}',
    series_instance_uids       text[] NOT NULL DEFAULT '{}',
    sop_instance_uids          text[] NOT NULL DEFAULT '{}',
    destination_aet            text NOT NULL,
    -- Requestor of the C-MOVE and its Message ID; NULL for SCU.
    move_originator_aet        text,
    move_originator_message_id integer CHECK (move_originator_message_id BETWEEN 0 AND 65535),
    priority                   integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 2),
    -- The latest counters: of our own sub-operations (SCP) or of the peer's latest response (SCU).
    remaining                  integer,
    completed                  integer NOT NULL DEFAULT 0,
    failed                     integer NOT NULL DEFAULT 0,
    warning                    integer NOT NULL DEFAULT 0,
    -- Status of the latest response (SCU) or of the final one (SCP); NULL until there is one.
    status                     integer,
    error_comment              text,
    failed_sop_instance_uids   text[] NOT NULL DEFAULT '{}',
    responses                  integer NOT NULL DEFAULT 0,
    CHECK ((role = 'SCP') = (move_originator_aet IS NOT NULL)),
    CHECK (retrieve_level <> 'PATIENT' OR patient_id IS NOT NULL)
) WITH (fillfactor = 70);

-- Message IDs of forwarded C-MOVEs: a storing archive echoes them, so they have to tell requests apart across hosts.
CREATE SEQUENCE move_message_id MINVALUE 1 MAXVALUE 65535 CYCLE;

-- A C-MOVE that was forwarded with this archive as destination: arriving objects are told to belong to it.
CREATE TABLE move_forward (
    pk                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Whose worker holds the association; dead when that attempt of the task is not IN PROCESS any more.
    task_fk              bigint NOT NULL REFERENCES task ON DELETE CASCADE,
    attempt              integer NOT NULL,
    external_aet         text NOT NULL,
    through_aet          text NOT NULL,
    -- What the other archive should send as Move Originator AE Title and Message ID.
    calling_aet          text NOT NULL,
    message_id           integer NOT NULL CHECK (message_id BETWEEN 1 AND 65535),
    -- Calling AE titles that store on its behalf (dcmCStoreSCUOfCMoveSCP).
    store_scu_aets       text[] NOT NULL DEFAULT '{}',
    retrieve_level       text NOT NULL CHECK (retrieve_level IN ('PATIENT', 'STUDY', 'SERIES', 'IMAGE')),
    -- The same text for the same request.
    entity_key           text NOT NULL,
    patient_id           text,
    study_instance_uids  text[] NOT NULL DEFAULT '{}',
    series_instance_uids text[] NOT NULL DEFAULT '{}',
    sop_instance_uids    text[] NOT NULL DEFAULT '{}',
    created_time         timestamptz NOT NULL DEFAULT now(),
    ended_time           timestamptz,
    -- The other archive's counters and status; status NULL at the end: given up, somebody else has to ask again.
    remaining            integer NOT NULL DEFAULT 0,
    completed            integer NOT NULL DEFAULT 0,
    failed               integer NOT NULL DEFAULT 0,
    warning              integer NOT NULL DEFAULT 0,
    status               integer,
    error_comment        text NOT NULL DEFAULT '',
    failed_sop_instance_uids text[] NOT NULL DEFAULT '{}'
);
-- Small, whatever the history: only open ones are looked for when an object arrives.
CREATE UNIQUE INDEX move_forward_open ON move_forward (calling_aet, message_id) WHERE ended_time IS NULL;
CREATE INDEX move_forward_task ON move_forward (task_fk);

-- Which objects arrived for a forwarded C-MOVE, whether they were new or known already.
CREATE TABLE move_arrival (
    pk          bigint GENERATED ALWAYS AS IDENTITY,
    forward_fk  bigint NOT NULL REFERENCES move_forward ON DELETE CASCADE,
    instance_fk bigint NOT NULL REFERENCES instance ON DELETE CASCADE,
    PRIMARY KEY (forward_fk, instance_fk)
);
CREATE INDEX move_arrival_order ON move_arrival (forward_fk, pk);
CREATE INDEX move_arrival_instance ON move_arrival (instance_fk);
