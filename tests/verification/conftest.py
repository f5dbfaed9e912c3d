import sys
from pathlib import Path

import pytest

pytest.importorskip("skfem", reason="scikit-fem, the independent solver, is in the extra `test`")
sys.path.insert(0, str(Path(__file__).parent))
