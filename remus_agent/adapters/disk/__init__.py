"""The backup's side of a disk: its device, its journal, and the order in which they are written."""
