-- What the previous release needed to take in an object of a known series.
DROP FUNCTION IF EXISTS store_in_series, hold_export, export_is_covered;
