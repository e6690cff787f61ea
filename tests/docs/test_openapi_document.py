"""docs/openapi.json is the document of the service.

    make openapi

rewrites it.
"""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/openapi.json"


def document() -> dict[str, Any]:
    """As the service makes it; the version is that of pyproject.toml, installed or not."""
    made = create_app(Settings(bundle=Path("nowhere"))).openapi()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return made | {"info": made["info"] | ({"version": project["version"]} if "version" in project else {})}


def test_the_document_is_that_of_the_service() -> None:
    made = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("ADRANK_UPDATE_DOCS"):
        PAGE.write_text(made)
        return
    assert PAGE.read_text() == made, "rewrite it: make openapi"
