"""Makes the lab's package importable: it belongs to a role and is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "roles/xen_lab/files"))
