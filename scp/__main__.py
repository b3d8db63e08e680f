"""Runs a DICOM SCP: ``python -m scp``; what that is stands in `scp.process`."""

import sys

from archive.decoders import leave_out_decoders

if __name__ == "__main__":
    leave_out_decoders()

    from scp.process import main

    sys.exit(main())
