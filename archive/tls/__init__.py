"""TLS for DICOM connections (PS3.15 Annex B): what is demanded, with which keys, over which socket.

Whether a connection speaks TLS is said by the directory (dicomTLSCipherSuite); `terms` decides
what that means, pure, when the directory is read. `stores` reads the files with keys and trusted
certificates when a connection is opened, so that a renewed certificate holds from the next
association on. `channel` is the socket, `faults` says why a handshake failed and what to do.
Nothing ever falls back from TLS to plain TCP, and no certificate goes unchecked.
"""
