"""What a drill does on the controller; see drill/main.py."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from drill.main import main  # noqa: E402  (the package lies beside this file)

if __name__ == "__main__":
    sys.exit(main())
