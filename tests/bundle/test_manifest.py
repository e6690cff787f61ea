import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import ManifestError
from bundle.manifest import Manifest, read_manifest
from tests.bundle import small


def written(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    content = json.loads(small.manifest().model_dump_json())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path)) == small.manifest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(colour=1), "colour: Extra inputs"),
        (lambda m: m["stages"]["qscore"].update(colour=1), r"stages\.qscore\.colour: Extra inputs"),
        (lambda m: m["features"]["ad"]["fields"][0].update(color=1), r"features\.ad\.fields\.0\.color: Extra"),
        (lambda m: m.pop("stages"), "stages: Field required"),
        (lambda m: m.pop("format"), "keys are missing: format"),
        (lambda m: m.pop("users"), "keys are missing: users"),
        (lambda m: m["stages"]["retrieval"].pop("interests"), r"keys are missing: stages\.retrieval\.interests"),
        (lambda m: m["features"]["user"]["fields"][1].pop("std"), r"keys are missing: features\.user\.fields\.1\.std"),
        (lambda m: m.update(format=1), "format: Input should be 2"),
        (lambda m: m.update(bundle_id="../away"), "bundle_id: String should match"),
        (lambda m: m.update(bundle_id=".hidden"), "bundle_id: String should match"),
        (lambda m: m["stages"]["finerank"].update(keep=0), r"stages\.finerank\.keep: .*greater than 0"),
        (lambda m: m["files"].update(a={"sha256": "x", "bytes": 1}), r"files\.a\.sha256: String should match"),
        (lambda m: m["catalogue"].update(ads=-1), r"catalogue\.ads: .*greater than or equal to 0"),
    ],
)
def test_a_wrong_manifest_is_refused_by_file_and_key(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(ManifestError, match=rf"manifest\.json: .*{message}"):
        read_manifest(written(tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json: file: "):
        read_manifest(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: cannot be read: No such file"):
        read_manifest(tmp_path)


def test_the_format_is_two() -> None:
    assert Manifest.model_fields["format"].default == 2
