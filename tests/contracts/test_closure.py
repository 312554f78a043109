"""The import closure of a made-up tree of packages, whose answers are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts import closure

TREE = {
    "contracts/__init__.py": "from contracts import first\n",
    "contracts/first.py": "",
    "contracts/unused.py": "",
    "cohort/__init__.py": "",
    "cohort/top.py": "import os\nimport cohort.plain as p\nfrom contracts.first import x\n",
    "cohort/plain.py": "",
    "cohort/inside.py": "def f():\n    if True:\n        from cohort import plain\n",
    "cohort/star.py": "from cohort.plain import *\n",
    "cohort/types_only.py": (
        "import typing\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from models.deep import leaf\n"
        "if typing.TYPE_CHECKING:\n    import models.deep.leaf\n"
        "else:\n    import cohort.plain\n"
    ),
    "cohort/by_name.py": "import importlib\nimportlib.import_module('models.deep.leaf')\n",
    "cohort/page.py": 'PAGE = "page.html"\nOTHER = "absent.html"\nUP = "../models/page.html"\n',
    "cohort/page.html": "<p>",
    "cohort/script.py": 'CODE = "run_me.py"\n',
    "cohort/run_me.py": "import cohort.plain\n",
    "cohort/circle_a.py": "import cohort.circle_b\n",
    "cohort/circle_b.py": "import cohort.circle_a\n",
    "cohort/gone.py": "import cohort.nowhere\n",
    "models/__init__.py": "",
    "models/page.html": "<p>",
    "models/whole.py": "from models import deep, deep as again\n",
    "models/deep/__init__.py": "from .leaf import value\n",
    "models/deep/__main__.py": "from . import other\n",
    "models/deep/leaf.py": "value = 1\n",
    "models/deep/other.py": "from ..whole import deep\nfrom .. import nothing\n",
    "models/finder.py": "from pkgutil import iter_modules\nimport models.deep as package\n",
    "training/flat.py": "import numpy\n",
}
CONTRACTS = {"contracts/__init__.py", "contracts/first.py"}
DEEP = {"models/__init__.py", "models/deep/__init__.py", "models/deep/leaf.py"}
PLAIN = {"cohort/__init__.py", "cohort/plain.py"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("cohort.top", PLAIN | CONTRACTS),
        ("cohort.inside", PLAIN),
        ("cohort.star", PLAIN),
        ("cohort.types_only", PLAIN),
        ("cohort.by_name", {"cohort/__init__.py"}),
        ("cohort.page", {"cohort/__init__.py", "cohort/page.html"}),
        ("cohort.script", PLAIN | {"cohort/run_me.py"}),
        ("cohort.circle_a", {"cohort/__init__.py", "cohort/circle_b.py"}),
        ("models.whole", DEEP),
        ("models.deep.leaf", DEEP),
        ("models.deep.__main__", DEEP | {"models/deep/other.py", "models/whole.py"}),
        (
            "models.finder",
            DEEP | {"models/deep/__main__.py", "models/deep/other.py", "models/whole.py"},
        ),
        ("training.flat", set()),
    ],
)
def test_the_closure_of_each_kind_of_import_is_known(
    tree: Path, module: str, others: set[str]
) -> None:
    expected = sorted({module.replace(".", "/") + ".py"} | others)
    found = closure.files(module, root=tree)
    assert [path.relative_to(tree).as_posix() for path in found] == expected


def test_a_package_stands_for_its_init(tree: Path) -> None:
    assert set(closure.files("models.deep", root=tree)) == {tree / name for name in DEEP}


def test_several_modules_have_the_union_of_their_closures(tree: Path) -> None:
    both = closure.files("cohort.top", "cohort.page", root=tree)
    one, other = (set(closure.files(m, root=tree)) for m in ("cohort.top", "cohort.page"))
    assert set(both) == one | other


def test_an_import_that_leads_nowhere_names_the_importer(tree: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"cohort/gone\.py imports cohort\.nowhere"):
        closure.files("cohort.gone", root=tree)
    with pytest.raises(ModuleNotFoundError, match=r"the caller imports cohort\.none"):
        closure.files("cohort.none", root=tree)


def test_the_digest_follows_contents_and_names_of_the_closure_alone(tree: Path) -> None:
    before = closure.digest("cohort.page", root=tree)
    (tree / "models/page.html").write_text("another")
    assert closure.digest("cohort.page", root=tree) == before
    (tree / "cohort/page.html").write_text("another")
    changed = closure.digest("cohort.page", root=tree)
    assert changed != before
    (tree / "cohort/absent.html").write_text("")
    assert closure.digest("cohort.page", root=tree) not in (before, changed)


def test_the_digest_does_not_depend_on_the_folder(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    for name, text in TREE.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text)
    modules = ("cohort.top", "models.deep.__main__")
    assert closure.digest(*modules, root=tree) == closure.digest(*modules, root=other)


def test_every_module_of_a_tree_is_listed(tree: Path) -> None:
    found = closure.module_files(tree)
    assert set(found.values()) == {tree / name for name in TREE if name.endswith(".py")}
    assert found["models.deep"] == tree / "models/deep/__init__.py"


PROBE = """
import sys
from contracts import closure
loaded = {m for m in sys.modules if m == "cohort" or m.startswith("cohort.")}
found = closure.files("cohort.split")
assert not loaded and not any(m.startswith("cohort") for m in sys.modules), "code was run"
print(*(path.relative_to(closure.ROOT) for path in found))
"""


def test_an_installed_copy_gives_the_same_answer_without_running_code(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    for name, path in closure.module_files().items():
        if name.partition(".")[0] in ("cohort", "contracts"):
            target = installed / path.relative_to(closure.ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=installed, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    here = [str(p.relative_to(closure.ROOT)) for p in closure.files("cohort.split")]
    assert done.stdout.split() == here
