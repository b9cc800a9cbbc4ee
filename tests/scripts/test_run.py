"""scripts/run on a machine of its own making: a small project, wheels from a folder, and a path with what we put there.

The real locks need a package index; that they install is seen each time somebody runs scripts/test in a fresh checkout.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("sh", "dirname", "cat", "cmp", "env", "find", "head")  # all that scripts/run may need beside a Python

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "llm-proxy"
version = "1"
"""
# An in-tree build: what setuptools does for the real project, without setuptools.
BACKEND = """
import os, zipfile

def build_editable(folder, settings=None, metadata=None):
    name = "llm_proxy-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        about = "llm_proxy-1.dist-info/"
        wheel.writestr("llm_proxy.pth", os.getcwd() + "\\n")
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: llm-proxy\\nVersion: 1\\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(about + "entry_points.txt", "[console_scripts]\\nllm-proxy = proxy.cli:main\\n")
        wheel.writestr(about + "RECORD", "")
    return name
"""
CLI = """
import os, sys
import tiny

def main():
    print("tiny", tiny.VERSION, "in", os.getcwd(), "with", sys.argv[1:])
"""


def make_wheel(folder: Path, version: str) -> str:
    """Writes tiny-<version>; returns its line for a lock."""
    folder.mkdir(exist_ok=True)
    path = folder / f"tiny-{version}-py3-none-any.whl"
    about = f"tiny-{version}.dist-info"
    files = {
        "tiny.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    files[f"{about}/RECORD"] = record + f"{about}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return f"tiny=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Checkout:
    """A small project in a folder with a blank in its name, and the machine it is on."""

    def __init__(self, folder: Path) -> None:
        self.machine = folder
        self.root = folder / "a checkout"
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "backend.py").write_text(BACKEND)
        (self.root / "proxy").mkdir()
        (self.root / "proxy" / "__init__.py").touch()
        (self.root / "proxy" / "cli.py").write_text(CLI)
        self.wheels = folder / "wheels"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)
        self.lock(make_wheel(self.wheels, "1"))
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def lock(self, text: str) -> None:
        (self.root / "scripts" / "runtime.lock").write_text(text)
        (self.root / "scripts" / "test.lock").write_text(text)

    def python(self, name: str, pretends: str = "") -> None:
        """Puts a Python on the path: this one, after it has run the statement `pretends`."""
        start = f"import sys; {pretends}; del sys.argv[0]; exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))"
        if pretends:
            script = f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n'
        else:
            script = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "scripts" / "run"), *arguments],
            cwd=self.machine,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=50)
        return process.returncode, out, err

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def one_sentence(err: str) -> str:
    """What stands on stderr beside the note that something is being installed: exactly one line."""
    lines = [line for line in err.splitlines() if ": installing what " not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("scripts/run: ")
    return lines[0]


def test_no_python_at_all(checkout: Checkout) -> None:
    code, out, err = checkout.run("demo")
    assert (code, out) == (1, "")
    assert one_sentence(err) == "scripts/run: needs Python 3.11 or newer, and found none on the path"
    assert not checkout.venv.exists()


def test_only_old_pythons(checkout: Checkout) -> None:
    checkout.python("python3", "sys.version_info = (3, 9, 2, 'final', 0)")
    checkout.python("python", "sys.version_info = (2, 7, 18, 'final', 0); del sys.implementation")
    code, _, err = checkout.run()
    assert code == 1
    assert one_sentence(err).endswith("found only: python3 is 3.9.2, python is 2.7.18")


def test_another_kind_of_python(checkout: Checkout) -> None:
    checkout.python("python3", "sys.implementation.name = 'pypy'")
    assert "python3 is pypy" in one_sentence(checkout.run()[2])


def test_a_shim_that_does_not_run(checkout: Checkout) -> None:
    (checkout.bin / "python3").write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    (checkout.bin / "python3").chmod(0o755)
    assert one_sentence(checkout.run()[2]).endswith("found only: python3 does not run")


def test_a_python_without_venv_says_which_package_to_install(checkout: Checkout) -> None:
    checkout.python("python3", "sys.modules['ensurepip'] = None")
    code, _, err = checkout.run()
    major, minor = sys.version_info[:2]
    assert code == 1
    assert one_sentence(err).endswith(f"has no venv module; install the package python{major}.{minor}-venv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retries", "why"),
    [("1", "no package index can be reached"), ("0", "no package index has a wheel for this machine")],
)
def test_no_package_index(checkout: Checkout, retries: str, why: str) -> None:
    checkout.python("python3")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused at once, and nobody else's
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        checkout.environment |= {
            "PIP_NO_INDEX": "0",
            "PIP_FIND_LINKS": "",
            "PIP_INDEX_URL": index,
            "PIP_RETRIES": retries,
        }
        code, out, err = checkout.run("demo")
    assert (code, out) == (1, "")
    assert f"{why} (last words: ERROR: " in one_sentence(err)
    assert not list(checkout.venv.glob("*.stamp"))


@pytest.mark.slow
def test_a_package_that_is_not_the_locked_one(checkout: Checkout) -> None:
    checkout.python("python3")
    checkout.lock(f"tiny==1 --hash=sha256:{'0' * 64}\n")
    code, _, err = checkout.run()
    assert code == 1
    assert "HASH" in one_sentence(err).upper()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which scripts/run went well once; both its starts came at the same time."""
    checkout = Checkout(tmp_path_factory.mktemp("machine"))
    checkout.python("python3", "sys.version_info = (3, 10, 1, 'final', 0)")
    checkout.python("python3.12")
    first, second = checkout.start("demo", "a b"), checkout.start()
    outputs = [process.communicate(timeout=50) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert outputs[0][0] == f"tiny 1 in {checkout.machine} with ['demo', 'a b']\n"
    assert outputs[1][0] == f"tiny 1 in {checkout.machine} with ['serve']\n"
    assert (outputs[0][1] + outputs[1][1]).count("installing what") == 1
    return checkout


@pytest.mark.slow
def test_the_second_start_needs_nothing_but_the_stamp(installed: Checkout) -> None:
    (installed.bin / "python3.12").rename(installed.bin / "elsewhere")
    try:
        assert installed.run("check") == (0, f"tiny 1 in {installed.machine} with ['check']\n", "")
    finally:
        (installed.bin / "elsewhere").rename(installed.bin / "python3.12")


@pytest.mark.slow
def test_what_was_compiled_comes_first_unless_the_sources_are_newer(installed: Checkout) -> None:
    compiled = installed.root / "build" / "compiled"
    (compiled / "proxy").mkdir(parents=True)
    (compiled / "proxy" / "__init__.py").touch()
    (compiled / "proxy" / "cli.py").write_text("def main():\n    print('compiled')\n")
    stamp, source = compiled / "stamp", installed.root / "proxy" / "cli.py"
    stamp.touch()
    os.utime(source, (1, 1))
    os.utime(installed.root / "proxy" / "__init__.py", (1, 1))
    assert installed.run() == (0, "compiled\n", "")
    os.utime(stamp, (2, 2))
    os.utime(source, (3, 3))
    code, out, err = installed.run()
    assert code == 0 and out.startswith("tiny 1 in")
    why = "proxy/cli.py is newer than what was compiled, so the sources run as they are (scripts/compile)"
    assert err == f"scripts/compiled: {why}\n"
    shutil.rmtree(installed.root / "build")


def test_a_new_lock_is_installed(installed: Checkout) -> None:
    installed.lock(make_wheel(installed.wheels, "2"))
    (installed.venv / "kept").touch()
    code, out, err = installed.run()
    assert (code, out) == (0, f"tiny 2 in {installed.machine} with ['serve']\n")
    assert "installing what" in err
    assert (installed.venv / "kept").exists(), "a whole environment is brought up to date in place"


@pytest.mark.slow
def test_a_half_made_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.python("python3")
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "half").touch()
    (checkout.venv / "bin" / "python").symlink_to(sys.executable)
    assert checkout.run()[0] == 0
    assert not (checkout.venv / "half").exists()
    # The same for one that was moved: its scripts still name the folder it was made in.
    moved = checkout.machine / "moved"
    checkout.root.rename(moved)
    checkout.root = moved
    code, out, err = checkout.run()
    assert (code, "installing what" in err) == (0, True), err
    assert out == f"tiny 1 in {checkout.machine} with ['serve']\n"
