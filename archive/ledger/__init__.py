"""The ledger: PostgreSQL tables of what is stored and what has to be done with it.

The ledger is the only authority. Every function takes an open transaction and does one thing in
it; a crash between two transactions leaves rows that the next dispatcher or rescuer pass picks up.
Only the database's clock decides when something is due or lapsed.
"""
