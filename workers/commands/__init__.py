"""Subcommands of ``celery -A workers``, found through the entry point group `celery.commands`.

Celery imports these modules whenever it starts, so they import everything but click inside their
functions.
"""
