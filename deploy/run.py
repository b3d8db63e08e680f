"""Starts the whole system on one machine: ``make run``; how stands in `deploy.launcher`."""

import sys

from archive.decoders import leave_out_decoders

if __name__ == "__main__":
    leave_out_decoders()

    from deploy.launcher import main

    sys.exit(main())
