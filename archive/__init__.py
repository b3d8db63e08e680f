"""What every process of dicomq shares: model, configuration, ledger and storage.

The ledger (PostgreSQL) is the only authority on what was received and what has to be done;
everything else - Redis, Celery messages, files without a row - can be lost or rebuilt from it.
"""
