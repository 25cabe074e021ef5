"""Xen: taking checkpoints of a running guest, holding a paused copy, asking the hypervisor and its toolstack.

`libs` and `structs` need nothing but ctypes, so that the supervisor stays small; everything else uses numpy.
"""
