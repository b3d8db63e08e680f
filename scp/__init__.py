"""The DICOM SCP: receives objects and answers once they are safe.

Authority: the ledger. Status 0000 leaves after the file is durable and one transaction holds the
index rows and every task that the export rules demand, so there is no moment at which an object is
stored and its export is not recorded (design promise 1).

Association negotiation and every DIMSE service but C-STORE are pynetdicom's; `receiving` is the
seam at which the data sets of C-STORE requests leave its path: they go from the socket to the
temporary file in pieces, so that the memory of an association does not depend on the size of an
object or on any length that a peer announces. Several processes may share a port (SO_REUSEPORT);
they share nothing else but the ledger and the storage. A crash leaves at worst a file in doubt,
which the next start confirms or removes.
"""
