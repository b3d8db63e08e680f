"""Where the bytes of objects lie.

Authority: the ledger says which files exist; a storage only keeps bytes under paths. The order of
work of a reception is: temporary file, link under the final path, fsync of the file and of every
directory entry that leads to it, ledger commit, then `settle`. Until it is settled a file keeps a
second name in ``.incoming`` that tells its final path, and the process that writes it holds a lock
on it. A crash therefore leaves behind, at worst, a file without a row, and the next start finds
exactly these in doubt without walking the storage: `sweep` asks the ledger about each and deletes
those without a row. A row without a file cannot come about by a crash.
"""
