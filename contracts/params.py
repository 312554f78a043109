"""params.yaml, one section at a time, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import UserError

T = TypeVar("T")
PARAMS_FILE = Path("params.yaml")


def load(kind: type[T], section: str, path: Path = PARAMS_FILE) -> T:
    """Read `section` (dotted, e.g. ``train.2d``) of a parameter file into the dataclass `kind`.

    The file is read as YAML 1.2, as DVC does, so that ``1e-4`` is a number.

    Raises
    ------
    UserError : if the file or section is missing, a key is unknown or missing, or a value has
        the wrong type; the message names the key, what was expected and what was found.
    """
    return parse(kind, _section(_document(path), section, path), section, path)


def sections(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole parameter file as plain values."""
    return _document(path)


def _document(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    if not path.exists():
        raise UserError(f"no {path} here: run from the project's root")
    try:
        document = YAML(typ="safe").load(path.read_text())
    except YAMLError as error:
        place = str(error).replace("\n", " ")
        raise UserError(f"{path} is not valid YAML: {place}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected sections, found {type(document).__name__}")
    return document


def _section(document: dict[str, Any], section: str, path: Path) -> Any:
    value: Any = document
    for part in section.split("."):
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(map(str, value)) if isinstance(value, dict) else "nothing"
            raise UserError(f"{path}: no section '{section}'; found {known}")
        value = value[part]
    return value


def parse(kind: type[T], value: Any, name: str, path: Path = PARAMS_FILE) -> T:
    """Turn plain values into the dataclass `kind`; `name` is the key used in errors."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name}: expected keys, found {_found(value)}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(fields)}"
            raise UserError(f"{path}: unknown key '{name}.{key}'; {hint}")
    chosen = {}
    for key, field in fields.items():
        if key in value:
            chosen[key] = _convert(hints[key], value[key], f"{name}.{key}", path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path}: key '{name}.{key}' is missing; add it")
    try:
        return kind(**chosen)
    except ValueError as error:  # a dataclass may check its own values
        raise UserError(f"{path}: {name}: {error}") from error


def _convert(hint: Any, value: Any, name: str, path: Path) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type[Any], hint), value, name, path)
    if origin is typing.Literal:
        if value in args and type(value) in {type(a) for a in args}:
            return value
        raise UserError(
            f"{path}: {name}: expected one of {', '.join(map(str, args))}, found {_found(value)}"
        )
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _convert(inner, value, name, path)
    if origin is tuple and isinstance(value, list):
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise UserError(f"{path}: {name}: expected {len(args)} values, found {len(value)}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(
            _convert(k, v, f"{name}[{i}]", path)
            for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict and isinstance(value, dict):
        return value  # its keys belong to somebody else
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    expected = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    raise UserError(f"{path}: {name}: expected {expected.get(hint, hint)}, found {_found(value)}")


def _found(value: Any) -> str:
    kinds = {str: "text", bool: "a truth value", dict: "keys", list: "a list"}
    return f"{value!r} ({kinds[type(value)]})" if type(value) in kinds else repr(value)
