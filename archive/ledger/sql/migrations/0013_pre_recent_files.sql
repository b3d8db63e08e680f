-- Files recorded in the last hour are looked for whenever an SCP starts, which must not read every row ever written.
-- Rows lie in the order of their time, so the least of all indexes does, which costs a writer next to nothing.
CREATE INDEX location_created ON location USING brin (created_time) WITH (autosummarize = on);
