"""Codec of Xen's migration stream (xl, libxl and libxc layers): bytes <-> typed records, sans-IO."""
