"""Where the recorded provider traffic is, for tests that are parametrised with it.

Lives here: the folder and its manifest. May not live here: reading of bodies (each test knows what it looks at).
The folder is beside the checkout of those who have it (DESIGN 13), so all of this must go well without it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT.parent / "shared" / "fixtures"


def is_at_hand() -> bool:
    return (FIXTURES / "manifest.json").is_file()


@cache
def recorded() -> list[dict[str, Any]]:
    """The manifest's entries; none where the folder is not at hand."""
    if not is_at_hand():
        return []
    entries: list[dict[str, Any]] = json.loads((FIXTURES / "manifest.json").read_text())["fixtures"]
    return entries
