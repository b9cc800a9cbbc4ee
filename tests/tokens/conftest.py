"""The tokenizer is there on every machine, if need be as a stand-in (standin/quicktok.py)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("quicktok") is None:  # the process that counts gets our sys.path
    sys.path.append(str(Path(__file__).resolve().parent / "standin"))
