-- Files of replaced objects until they are deleted, which comes after the commit: a crash in between leaves no orphan.
CREATE TABLE obsolete_file (
    storage_id          text NOT NULL,
    storage_path        text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    object_size         bigint NOT NULL,
    dataset_offset      bigint NOT NULL,
    digest              text NOT NULL,
    replaced_time       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (storage_id, storage_path)
);
