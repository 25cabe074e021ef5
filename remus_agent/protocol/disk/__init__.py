"""What travels and is journaled of a protected disk: operations, extents, epochs. No input or output (ADR 0005)."""
