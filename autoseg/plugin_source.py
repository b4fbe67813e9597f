"""Reading about a plugin without running it: where its source file is, and what its docstring says.

``autoseg list`` must neither import torch nor trust a plugin to import, so descriptions come from the
source text: the module is located the way the import system would, and parsed with :mod:`ast`.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


def find_module(module: str) -> ModuleSpec | None:
    """Locate a module without executing it or any package around it.

    The top-level name is looked up through ``sys.meta_path``, where editable installs put their finders;
    everything below is found on the package's own search path.

    Returns:
        The module's spec, or None when there is no such module.

    Example:
        >>> find_module("autoseg.errors").origin.endswith("errors.py"), find_module("autoseg.no.such")
        (True, None)
    """
    names = module.split(".")
    try:
        spec = importlib.util.find_spec(names[0])
    except (ImportError, ValueError, AttributeError):
        return None
    for depth in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:depth]), list(spec.submodule_search_locations))
    return spec


def find_source(module: str) -> Path | None:
    """The Python source file of a module; None when it is missing, built in or compiled.

    Example:
        >>> find_source("autoseg.errors").name
        'errors.py'
    """
    spec = find_module(module)
    if spec is None or not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def summary_line(value: str) -> str:
    """First docstring line of ``module:attribute``, read from the source text.

    Definitions (``class``, ``def``), assignments followed by a string, and names re-exported with
    ``from .x import name`` are understood.

    Args:
        value: An entry-point value such as ``"autoseg.errors:Problem"``.

    Returns:
        The line, or an empty string when there is none or the source cannot be read.

    Example:
        >>> summary_line("autoseg.errors:Problem")
        'One thing that is wrong.'
    """
    module, _, attribute = value.split("[")[0].partition(":")
    return _summary(module.strip(), attribute.strip(), hops=4)


def _summary(module: str, attribute: str, hops: int) -> str:
    path = find_source(module)
    tree = _parse(path, path.stat().st_mtime_ns) if path and path.exists() else None
    if path is None or tree is None:
        return ""
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef = tree
    for name in filter(None, attribute.split(".")):
        for index in reversed(range(len(node.body))):
            statement = node.body[index]
            if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                node = statement
                break
            if isinstance(statement, ast.Assign | ast.AnnAssign) and _assigns(statement, name):
                return _text_after(node.body, index)
            if isinstance(statement, ast.ImportFrom):
                original = next((a.name for a in statement.names if (a.asname or a.name) == name), None)
                if original and hops:
                    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                    return _summary(_import_target(statement, package), original, hops - 1)
        else:
            return ""
    return _first_line(ast.get_docstring(node) or "")


@lru_cache(maxsize=256)
def _parse(path: Path, mtime_ns: int) -> ast.Module | None:
    """The syntax tree of a file; ``mtime_ns`` makes the cache notice an edit."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _assigns(statement: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _text_after(body: Sequence[ast.stmt], index: int) -> str:
    """The string literal that documents an assignment, standing right below it."""
    below = body[index + 1] if index + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
        return _first_line(below.value.value)
    return ""


def _import_target(statement: ast.ImportFrom, package: str) -> str:
    """Absolute name of the module that ``from ... import`` names inside ``package``."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - statement.level + 1], *filter(None, [statement.module])])


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
