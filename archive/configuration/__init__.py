"""Configuration: a directory of entries decoded into one immutable snapshot.

The directory (an LDAP server, or an LDIF file that behaves like one) is the authority. Decoding
never stops at the first problem: a bad entry is set aside alone and named in
`Snapshot.problems`. Processes ask `ConfigurationSource.snapshot()` whenever they start a unit
of work and keep what they got until the unit ends.
"""
