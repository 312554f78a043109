"""`python -m infra.stages`: write each stage's dependencies on code into dvc.yaml.

A stage depends on the import closure of the module that its command runs, and on
requirements.lock, which stands for the installed packages. The other dependencies (data),
parameters, outputs, comments and their order stay as they are.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from contracts import closure
from contracts.console import command, say
from contracts.errors import UserError

PIPELINE = Path("dvc.yaml")
LOCK = "requirements.lock"
_MODULE = re.compile(r"\bpython3? -m (\S+)")


def module_of(cmd: str | list[str], root: Path = closure.ROOT) -> str:
    """Return the module that a stage's command runs, as a name that `closure.files` takes.

    Raises
    ------
    UserError : if it is not a command of the form ``python -m MODULE ...``.
    """
    text = cmd if isinstance(cmd, str) else " ".join(cmd)
    found = _MODULE.search(text)
    if found is None:
        raise UserError(f"expected a command `python -m MODULE ...` in {PIPELINE}, found `{text}`")
    name = found[1]
    package = root.joinpath(*name.split("."), "__main__.py")
    return f"{name}.__main__" if package.is_file() else name


def code_of(cmd: str | list[str], root: Path = closure.ROOT) -> list[str]:
    """Return the code that a stage depends on: paths relative to `root`, then the lock file."""
    found = closure.files(module_of(cmd, root), root=root)
    return [*(path.relative_to(root).as_posix() for path in found), LOCK]


def rewritten(text: str, root: Path = closure.ROOT) -> tuple[str, list[str]]:
    """Return the text of a dvc.yaml with the dependencies on code of `root`, and what changed.

    Returns
    -------
    The new text, and the names of the stages whose lists differ from the old ones.
    """
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    yaml.preserve_quotes = True
    document = yaml.load(text)
    changed = []
    for name, entry in document["stages"].items():
        stage = entry.get("do", entry)
        deps = stage.get("deps", [])
        wanted = _merged(deps, code_of(stage["cmd"], root))
        if list(wanted) != list(deps):
            changed.append(name)
            if "deps" in stage:
                stage["deps"] = wanted
            else:
                stage.insert(list(stage).index("cmd") + 1, "deps", wanted)
    out = io.StringIO()
    yaml.dump(document, out)
    return (out.getvalue() if changed else text), changed


def _merged(old: Any, code: list[str]) -> CommentedSeq:
    """The code first, then the other dependencies in their order, with their comments."""
    new = CommentedSeq(code)
    # A comment is kept with the item above it: what stands above data may follow code.
    comments = old.ca.items if isinstance(old, CommentedSeq) else {}
    for i, item in enumerate(old):
        if is_code(str(item)):
            last = i + 1 == len(old) or not is_code(str(old[i + 1]))
            if last and i in comments:
                new.ca.items.setdefault(len(new) - 1, comments[i])
        else:
            new.append(item)
            if i in comments:
                new.ca.items[len(new) - 1] = comments[i]
    return new


def is_code(dependency: str) -> bool:
    """Return whether a dependency is one that this command writes, not data."""
    return dependency == LOCK or dependency.partition("/")[0] in closure.PACKAGES


@command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if a list differs.")
def main(check: bool) -> None:
    """Write each stage's dependencies on code into dvc.yaml."""
    if not PIPELINE.exists():
        raise UserError(f"no {PIPELINE} here: run from the project's root")
    text, changed = rewritten(PIPELINE.read_text())
    names = ", ".join(changed)
    if not changed:
        say(f"{PIPELINE}: the dependencies of every stage are those that its code imports")
    elif check:
        say(f"{PIPELINE}: the code of these stages imports other files: {names}; `make stages`")
        raise SystemExit(1)
    else:
        partial = PIPELINE.with_name(PIPELINE.name + ".partial")
        partial.write_text(text)
        partial.replace(PIPELINE)
        say(f"{PIPELINE}: rewrote the dependencies of {names}")


if __name__ == "__main__":
    main()
