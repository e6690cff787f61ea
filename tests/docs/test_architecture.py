"""docs/architecture.md: the layout, the doors and the table of decisions are the real ones."""

import ast
import re
from pathlib import Path

from tests.docs.pages import PACKAGES, ROOT, blocks, codes, read, table

PAGE = read("docs/architecture.md")
PROGRAMS = (ROOT / "benchmarks/http/peers", ROOT / "benchmarks/training/peers")
"""Other servers' and libraries' programs, which run in environments of their own and import nothing of ours."""


def modules() -> set[str]:
    """Every module of ours, packages' __init__.py left out."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    ours = (path for path in files if path.name != "__init__.py" and path.parent not in PROGRAMS)
    return {path.relative_to(ROOT).as_posix() for path in ours}


def tree() -> set[str]:
    """The paths that the picture of the layout draws."""
    picture = next(block.text for block in blocks(PAGE) if "adrank.py" in block.text)
    found: set[str] = set()
    folders: list[str] = []
    for line in picture.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        found.add("/".join([*folders, name.rstrip("/")]))
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
    return found


def test_the_layout_is_the_real_one() -> None:
    drawn = tree()
    assert {
        path for path in drawn if path.startswith(tuple(f"{name}/" for name in PACKAGES)) and "." in path
    } == modules()
    for path in drawn - {"artifacts"}:
        assert (ROOT / path).exists(), path


def imports(path: Path) -> set[str]:
    """The libraries that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_each_outside_system_has_one_door() -> None:
    named = {library: set(codes(files)) for library, files in table(PAGE, "doors")}
    assert set(named) >= {"onnxruntime", "faiss", "redis", "prometheus_client", "uvicorn", "onnx"}
    found = {path: imports(ROOT / path) for path in modules()}
    for library, files in named.items():
        assert {path for path, libraries in found.items() if library in libraries} == files, library


def test_every_decision_names_a_test() -> None:
    rows = table(PAGE, "decided")
    assert len(rows) > 20
    for trouble, answer, held in rows:
        assert answer, trouble
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`(, `tests/[\w/]+\.py::test_\w+`)*", held), trouble
