"""The control room: pages and REST inside Flower.

`option` hooks them into ``celery -A workers flower``; nothing here is imported by any other
command. Flower's own pages stay as they are.
"""
