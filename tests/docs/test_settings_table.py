"""The table of settings in docs/operations.md is made from the settings.

    ADRANK_UPDATE_DOCS=1 .venv/bin/python -m pytest tests/docs/test_settings_table.py

rewrites it.
"""

import os
import re
from typing import Any

from pydantic_core import PydanticUndefined

from service.settings import PREFIX, Settings
from tests.docs.pages import PAGES, ROOT, codes, name_of, prose

PAGE = ROOT / "docs/operations.md"
SECTION = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)


def render() -> str:
    """The table: variable, default, bounds and why."""
    lines = ["| variable | default | accepts | why |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "required" if field.default is PydanticUndefined else shown(field.default)
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {accepted(name)} | {field.description} |")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A default as a reader would write it."""
    return "none" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def accepted(name: str) -> str:
    """What a setting accepts, from its JSON schema."""
    schema: dict[str, Any] = Settings.model_json_schema()["properties"][name]
    branches = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    return " or ".join(map(_accepted, branches))


def _accepted(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    kind = {"integer": "integer", "number": "number", "string": "text"}[schema["type"]]
    if schema.get("format") == "path":
        kind = "path"
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f"{kind} {low:,}–{high:,}"
    return f"{kind} ≥ {low:,}" if low is not None else f"{kind} > {above:g}" if above is not None else kind


def test_the_table_is_that_of_the_settings() -> None:
    text = PAGE.read_text()
    found = SECTION.search(text)
    assert found, "docs/operations.md has no settings section"
    if os.environ.get("ADRANK_UPDATE_DOCS"):
        PAGE.write_text(SECTION.sub(lambda _: render(), text))
        return
    assert found[0] == render(), "rewrite it: see the head of this file"


def test_settings_that_pages_name_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"ADRANK_UPDATE_DOCS"}
    for page in PAGES:
        for name in re.findall(r"ADRANK_[A-Z_]*[A-Z]", page.read_text()):
            assert name in known, f"{name_of(page)} names {name}"


def test_settings_named_without_their_prefix_exist() -> None:
    """On the two pages that are about them: what looks like a setting's name in backticks is one."""
    ends = ("_ms", "_seconds", "_keep", "_url", "_prefix", "_level", "_limit", "_users", "_threads", "_ttl_s")
    ours = {"features_ms", "queue_ms", "total_ms", "expected_ms", "deadline_ms", "time_ms", "max_length", "live_ms"}
    for name in ("docs/operations.md", "docs/api.md"):
        for code in codes(prose((ROOT / name).read_text())):
            if code.endswith(ends) or code.startswith(("max_", "default_")):
                known = code in Settings.model_fields or code in ours or code.startswith("adrank_")
                assert known, f"{name} names {code}"
