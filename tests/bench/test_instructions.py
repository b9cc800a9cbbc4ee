"""Instructions of the straight path: what is run, how callgrind's words are read, and what stays of two runs.

A fake valgrind stands in the path: what the real one counts is its own business, and it may not be installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench import instructions
from bench.instructions import CannotRun, Profile, describe, measure, read_functions, read_pieces, read_profile
from bench.straight import KINDS

ANNOTATED = """\
--------------------------------------------------------------------------------
Profile data file 'callgrind.out' (creator: callgrind-3.19.0)
--------------------------------------------------------------------------------
Timerange: Basic block 0 - 257690017
Thresholds:       100
--------------------------------------------------------------------------------
Ir                    file:function
--------------------------------------------------------------------------------
1,002,007 (100.0%)  PROGRAM TOTALS

--------------------------------------------------------------------------------
Ir                    file:function
--------------------------------------------------------------------------------
1,000,000 (99.80%)  build/Python/ceval.c:_PyEval_EvalFrameDefault'2 [lib/libpython3.11.so.1.0]
    2,000 ( 0.20%)  ./Include/object.h:_PyEval_EvalFrameDefault'2
        4 ( 0.00%)  ???:0x0000000000001100 [site-packages/httptools/parser.cpython-311-x86_64-linux-gnu.so]
        3           build/Objects/bytesobject.c:stringlib_find
"""

WRITTEN = """\
# callgrind format
events: Ir
summary: 4242
fl=(1) ceval.c
fn=(7) _PyEval_EvalFrameDefault
16 400
cfi=(2) obmalloc.c
cfn=(8) _PyObject_Malloc
calls=3 12
16 60
cfn=(9) memcpy
calls=50 1
16 60
fn=(8)
12 90
cfn=(10) malloc
calls=5 1
fn=(11) bytes_new
cfn=(8)
calls=4 12
cfn=(12) _PyObject_Realloc'2
calls=2 12
totals: 4242
"""

# Counts 1,000 for the start and 50 for each unit, of which evaluating has 40; notes what it was asked to run.
FAKE_VALGRIND = f"""\
#!{sys.executable}
import os, sys
output = [each for each in sys.argv if each.startswith("--callgrind-out-file=")][0].partition("=")[2]
units = int(sys.argv[-1])
whose = open("proxy/__init__.py").read()
if whose == "# old":
    units *= 2
if whose == "# broken":
    sys.exit("==1== callgrind\\nTypeError: it has other names\\n==1== ends")
with open(output, "w") as file:
    file.write(f"fn=(1) f\\ncfn=(2) _PyObject_Malloc\\ncalls={{100 + 3 * units}} 1\\n")
    file.write(f"summary: {{1000 + 50 * units}}\\n")
with open(os.environ["PATH"].partition(":")[0] + "/asked", "a") as file:
    file.write(" ".join(sys.argv[-5:]) + " " + os.environ["PYTHONHASHSEED"] + "\\n")
"""
FAKE_ANNOTATE = f"""\
#!{sys.executable}
import sys
total = int(open(sys.argv[-1]).read().rpartition(": ")[2])
print(f"{{1000 - 200 + (total - 1000) * 4 // 5:,}} ( 1.0%)  ceval.c:evaluate [lib/libpython3.11.so.1.0]")
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of the path."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("valgrind", FAKE_VALGRIND), ("callgrind_annotate", FAKE_ANNOTATE)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def checkout(folder: Path) -> Path:
    (folder / "proxy").mkdir(parents=True)
    (folder / "proxy" / "__init__.py").write_text(f"# {folder.name}")
    return folder


# -- reading -----------------------------------------------------------------------------------------------------------


def test_functions_are_read_by_name_and_library() -> None:
    assert read_functions(ANNOTATED) == {
        "_PyEval_EvalFrameDefault (libpython3)": 1_002_000,
        "0x0000000000001100 (parser)": 4,
        "stringlib_find (?)": 3,
    }


def test_memory_is_counted_where_the_interpreter_is_asked_for_it() -> None:
    """Not where its allocator asks the C library in turn."""
    assert read_pieces(WRITTEN) == 3 + 4 + 2


def test_a_profile_has_its_total() -> None:
    profile = read_profile(WRITTEN, ANNOTATED)
    assert (profile.total, profile.pieces) == (4242, 9)


def test_what_counted_nothing_is_said() -> None:
    with pytest.raises(CannotRun, match="counted nothing"):
        read_profile("", "")


def test_the_difference_leaves_out_the_start() -> None:
    longer, shorter = Profile(1600, {"a": 1300, "b": 300}, 160), Profile(1200, {"a": 1000, "c": 200}, 120)
    each = longer.per_unit(shorter, 20)
    assert each == Profile(20, {"a": 15, "b": 15, "c": -10}, 2)


# -- running -----------------------------------------------------------------------------------------------------------


def test_two_runs_make_the_figure(fakes: Path, tmp_path: Path) -> None:
    found = measure("burst", checkout(tmp_path / "new"), 7)
    assert found == Profile(50, {"evaluate (libpython3)": 40}, 3)
    asked = (fakes / "asked").read_text().splitlines()
    assert asked == ["-m bench.straight burst --units 7 0", "-m bench.straight burst --units 21 0"]


def test_before_and_now_are_compared(fakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = checkout(tmp_path / "old")
    assert instructions.main(["unary", "--before", str(old), "--lines", "5"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "unary: 50 instructions, memory asked for 3.0 times"
    assert told[1] == "before: 100, 6.0; now 0.5000 of it"
    assert told[2].split() == ["40", "80", "80.0%", "evaluate", "(libpython3)"]


def test_a_checkout_that_has_other_names_is_skipped(
    fakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = checkout(tmp_path / "broken")
    assert instructions.main(["unary", "--before", str(broken)]) == 0
    said = capsys.readouterr()
    assert said.out == "unary: 50 instructions, memory asked for 3.0 times\n"
    assert said.err.startswith("before: skipped: ") and "TypeError: it has other names" in said.err


def test_a_folder_that_is_no_checkout_is_skipped(
    fakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert instructions.main(["stream", "--before", str(tmp_path)]) == 0
    assert "is no checkout" in capsys.readouterr().err


def test_without_valgrind_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert instructions.main(["unary"]) == 2
    assert capsys.readouterr().err == "valgrind is not installed\n"


def test_only_functions_that_are_asked_for_are_listed() -> None:
    profile = Profile(100, {"small": 1, "large": 80, "other": 19}, 2)
    assert len(describe("unary", profile, None, 0).splitlines()) == 1
    assert [line.split()[-1] for line in describe("unary", profile, None, 2).splitlines()[1:]] == ["large", "other"]


def test_all_that_the_straight_path_does_can_be_counted() -> None:
    assert instructions.UNITS.keys() == KINDS.keys()
