-- Instance Availability of a study is the worst of its instances: only those that are not online are looked at.
CREATE INDEX instance_not_online ON instance (series_fk, availability) WHERE availability <> 'ONLINE';
