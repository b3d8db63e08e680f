-- Procedure steps are looked up by the studies of their scheduled steps, of which there may be several.
CREATE INDEX mpps_attributes ON mpps USING gin (attributes jsonb_path_ops);

-- What a procedure step produced tells its studies; the scheduled step may name none.
ALTER TABLE ian_trigger ALTER COLUMN study_instance_uid DROP NOT NULL;
ALTER TABLE ian_trigger ADD CONSTRAINT ian_trigger_has_subject CHECK (study_instance_uid IS NOT NULL OR mpps_fk IS NOT NULL);
