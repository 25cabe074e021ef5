"""Makes the packages beside this file importable: `proof`, `pair`, `bench`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
