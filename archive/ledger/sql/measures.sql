-- open_commitments --
-- Requests for storage commitment that wait for a report, by destination, and seconds since the oldest was sent.
SELECT remote_aet, count(*), extract(epoch FROM clock_timestamp() - min(requested_time))::float8
FROM commitment
WHERE device_name = %(device_name)s AND status = 'PENDING' AND reported_time IS NULL
GROUP BY remote_aet;
