"""The import closure of a module: every file of this project that its result can depend on.

It is read from the source, without running anything, and answers two questions: which files a
stage of dvc.yaml depends on, and whether kept work was made by the code that is there now.

The closure of a module holds the module, the modules that it imports at its top or inside
functions, the ``__init__.py`` of their packages, what those import in turn, and the files beside
a module that the module names in a string, such as a page template. A module that imports
`pkgutil` looks for the modules of a package: it brings all modules of the packages it names.

It leaves out what a module cannot run or does not name:

- imports under ``if TYPE_CHECKING:``, which serve type checkers and never run;
- modules that are looked up by a name at run time (`importlib.import_module`), such as the
  tracking backend: no result may depend on them;
- installed packages: requirements.lock stands for those.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# The folder that holds the packages below: the project's root, or site-packages.
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "benchmarks",
    "cohort",
    "contracts",
    "evaluation",
    "models",
    "registry",
    "services",
    "serving",
    "training",
)
# Longer strings are texts, not the names of files.
_LONGEST_NAME = 100


def files(*modules: str, root: Path = ROOT) -> tuple[Path, ...]:
    """Return the absolute paths of the files in the import closure of some modules, sorted.

    Parameters
    ----------
    modules : dotted names, e.g. ``cohort.derive``. A package stands for its ``__init__.py``;
        ``package.__main__`` is what ``python -m package`` runs.
    root : folder that holds the packages.

    Raises
    ------
    ModuleNotFoundError : if a module, or one that the closure imports, has no source file.
    """
    found: set[Path] = set()
    waiting: list[Path] = []
    for name in modules:
        waiting += _chain(name, root, "the caller")
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            if path.suffix == ".py":
                waiting += _named_by(path, root)
    return tuple(sorted(found))


def digest(*modules: str, root: Path = ROOT) -> str:
    """Return 12 hex digits that change with any name or content in the closure of the modules.

    Raises
    ------
    ModuleNotFoundError : as `files`.
    """
    total = hashlib.sha256()
    for path in files(*modules, root=root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()[:12]


def module_files(root: Path = ROOT) -> dict[str, Path]:
    """Return the source file of every module of this project, by the module's dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, root: Path = ROOT) -> tuple[str, ...]:
    """Return the dotted names that a source file imports, ours and others', in their order.

    For ``from a.b import c`` that is ``a.b`` and, if it is a module of ours, ``a.b.c``.
    """
    found = []
    for level, origin, names in _read(path.read_bytes()).imports:
        # One dot is the package that holds the module, two dots the package around that.
        package = path.relative_to(root).parent.parts
        start = package[: len(package) - level + 1] if level else ()
        base = ".".join([*start, *([origin] if origin else [])])
        inner = [f"{base}.{name}" for name in names]
        found += [base, *(name for name in inner if is_ours(name) and _source(name, root))]
    return tuple(found)


def is_ours(name: str) -> bool:
    """Return whether a dotted name belongs to a package of this project."""
    return name.partition(".")[0] in PACKAGES


@dataclass(frozen=True, slots=True)
class _Content:
    """What a source file says of other files.

    Parameters
    ----------
    imports : the dots before the name, the name, and the names imported from it.
    texts : its short strings.
    """

    imports: tuple[tuple[int, str, tuple[str, ...]], ...]
    texts: tuple[str, ...]


@cache
def _read(source: bytes) -> _Content:
    tree = ast.parse(source)
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append((node.level, node.module or "", names))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    short = sorted(t for t in texts if 0 < len(t) <= _LONGEST_NAME and t.isprintable())
    return _Content(tuple(found), tuple(short))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for other in node.orelse:
                yield other
                yield from _running(other)
        else:
            yield node
            yield from _running(node)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return bool(name == "TYPE_CHECKING")


def _named_by(path: Path, root: Path) -> Iterator[Path]:
    """The files that one module brings into the closure."""
    names = imports(path, root)
    for name in names:
        if is_ours(name):
            yield from _chain(name, root, str(path.relative_to(root)))
            folder = root.joinpath(*name.split("."))
            if "pkgutil" in names and folder.is_dir():
                yield from sorted(folder.glob("*.py"))
    for text in _read(path.read_bytes()).texts:
        beside = path.parent / text
        if not Path(text).is_absolute() and ".." not in Path(text).parts and beside.is_file():
            yield beside


def _chain(name: str, root: Path, importer: str) -> list[Path]:
    """The files that importing a module runs: those of its packages, and its own."""
    if _source(name, root) is None:
        raise ModuleNotFoundError(f"{importer} imports {name}, which has no source file in {root}")
    parts = name.split(".")
    sources = [_source(".".join(parts[: i + 1]), root) for i in range(len(parts))]
    return [path for path in sources if path is not None and path.is_file()]


def _source(name: str, root: Path) -> Path | None:
    """The file of a module or package; the folder of a package without `__init__.py`."""
    folder = root.joinpath(*name.split("."))
    for path in (folder / "__init__.py", folder.with_name(folder.name + ".py")):
        if path.is_file():
            return path
    return folder if folder.is_dir() else None
