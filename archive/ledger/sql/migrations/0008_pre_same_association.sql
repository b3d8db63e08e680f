-- A report of storage commitment that may be sent on the association of its request.
-- How long the process that holds that association may take the report; NULL: it goes over a new association.
ALTER TABLE stgcmt_scp_task ADD COLUMN same_association_until timestamptz;
-- What is to be reported, once it is verified: SOP Class UID, SOP Instance UID, failure reason, Retrieve AE Title.
ALTER TABLE stgcmt_scp_task ADD COLUMN report jsonb;
ALTER TABLE stgcmt_scp_task ADD COLUMN taken_time timestamptz;
-- Status of the response to the report.
ALTER TABLE stgcmt_scp_task ADD COLUMN answered_status integer;
