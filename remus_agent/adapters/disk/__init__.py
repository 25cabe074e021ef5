"""Protected disks: device-mapper and nbd below the guest on its primary, device and journal on its backup (ADR 0005)."""
