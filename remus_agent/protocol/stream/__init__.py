"""Codec of Xen's migration stream (xl header, libxl stream, libxc stream): bytes <-> typed records, sans-IO."""
