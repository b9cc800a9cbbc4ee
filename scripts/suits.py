# Says "ok" if this Python can run the project, else what it lacks. Must be readable for any Python ever met on a path,
# so: no f-strings, no annotations, no print statement.
import sys

version = sys.version_info
number = "%d.%d.%d" % tuple(version[:3])
kind = sys.implementation.name if hasattr(sys, "implementation") else "cpython"
if version < (3, 11) or kind != "cpython":
    verdict = "is " + number if kind == "cpython" else "is " + kind
else:
    try:
        import ensurepip  # noqa: F401  Debian packs it apart from python3
        import venv  # noqa: F401

        verdict = "ok"
    except ImportError:
        verdict = "(%s) has no venv module; install the package python%d.%d-venv" % ((number,) + tuple(version[:2]))
sys.stdout.write(verdict + "\n")
