-- count_arrivals --
-- How many instances arrived for a forwarded C-MOVE.
SELECT count(*) FROM move_arrival WHERE forward_fk = %(forward_pk)s;
