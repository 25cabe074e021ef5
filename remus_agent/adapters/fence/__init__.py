"""Fence agents, the programs that switch hosts off for cluster managers."""
