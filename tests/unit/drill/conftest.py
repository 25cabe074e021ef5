"""Makes the drill's package importable: it belongs to a role and is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "roles/remus_drill/files"))
