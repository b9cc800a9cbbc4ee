"""Tests of the whole: the sidecar as a process of its own, real sockets, the vendors' own SDKs as clients.

processes     Sidecar (`python -m proxy serve`), Provider (the simulator in a thread); read it first
conftest      both as fixtures; after each test every sidecar is alive and has logged no error
"""
