-- open_commitments --
-- Requests for storage commitment by destination: how many wait for a report, seconds since the oldest of them was sent,
-- and how many of the last hour were not fulfilled when their deadline was over.
SELECT remote_aet,
       count(*) FILTER (WHERE is_waiting),
       coalesce(extract(epoch FROM clock_timestamp() - min(requested_time) FILTER (WHERE is_waiting)), 0)::float8,
       count(*) FILTER (WHERE escalated_time > clock_timestamp() - interval '1 hour' AND accepted_time IS NOT NULL)
FROM (SELECT *, status = 'PENDING' AND reported_time IS NULL AS is_waiting FROM commitment
      WHERE device_name = %(device_name)s AND status <> 'COMPLETED') c
GROUP BY remote_aet;
