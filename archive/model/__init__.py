"""The vocabulary of dicomq: identifiers, tasks, statuses, schedules and retry rules.

Pure: nothing here does input or output, so every rule in this room can be tested as a table.
"""
