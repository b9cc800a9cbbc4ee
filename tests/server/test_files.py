"""Files that settings read."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.server.files import builtin_prices, read_text_file


def test_a_real_file_is_read_and_a_huge_or_binary_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("h\u00e9")
    assert read_text_file(str(file)) == "h\u00e9"
    for content in (b"x" * (1024 * 1024 + 1), b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r".+"):
            read_text_file(str(file))


def test_the_prices_that_come_with_the_program() -> None:
    assert builtin_prices().version
    assert builtin_prices() is builtin_prices()
