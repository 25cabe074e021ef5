"""Remus for Xen: the agent that keeps a running guest's copy on a second host, checkpoint by checkpoint."""

__version__ = "0.1.0"
