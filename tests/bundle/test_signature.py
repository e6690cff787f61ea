"""A signature holds for one manifest and one key, and for nothing else."""

import base64
import json
import stat
from pathlib import Path

import pytest

from bundle.command import main
from bundle.errors import ManifestError, SignatureError
from bundle.folder import SIGNATURE, verify_files
from bundle.manifest import MANIFEST, read_manifest
from bundle.signature import check_key, check_signature, make_key, read_signatures, sign
from tests.bundle import small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.small_bundle(tmp_path)


@pytest.fixture
def keys(tmp_path: Path) -> dict[Path, str]:
    """Two private keys' files and their public keys."""
    return {path: make_key(path) for path in (tmp_path / "one.pem", tmp_path / "two.pem")}


def test_a_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key.pem")
    assert check_key(public) == public
    assert len(base64.b64decode(public)) == 32
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_key(tmp_path / "key.pem")


def test_a_signed_bundle_is_accepted_and_still_whole(folder: Path, keys: dict[Path, str]) -> None:
    file, public = next(iter(keys.items()))
    assert sign(folder, file) == public
    assert check_signature(folder, [public]) == 1
    verify_files(folder, read_manifest(folder))


def test_several_keys_may_sign_each_once(folder: Path, keys: dict[Path, str]) -> None:
    for file in [*keys, *keys]:
        sign(folder, file)
    assert {each.key for each in read_signatures(folder)} == set(keys.values())
    assert len(read_signatures(folder)) == 2
    assert check_signature(folder, list(keys.values())) == 2
    assert all(check_signature(folder, [public]) == 1 for public in keys.values())


def test_an_unsigned_bundle_is_refused(folder: Path, keys: dict[Path, str]) -> None:
    with pytest.raises(SignatureError, match="is not signed, and one of 2 keys must have signed it"):
        check_signature(folder, list(keys.values()))


def test_a_signature_by_another_key_is_refused(folder: Path, keys: dict[Path, str]) -> None:
    (file, ours), (_, other) = keys.items()
    sign(folder, file)
    with pytest.raises(SignatureError) as caught:
        check_signature(folder, [other])
    assert ours in str(caught.value)
    assert other in str(caught.value)


def test_a_signature_that_only_names_an_accepted_key_is_refused(folder: Path, keys: dict[Path, str]) -> None:
    (file, ours), (_, accepted) = keys.items()
    sign(folder, file)
    (folder / SIGNATURE).write_text((folder / SIGNATURE).read_text().replace(ours, accepted))
    with pytest.raises(SignatureError, match="none of them is of this"):
        check_signature(folder, [accepted])


def test_a_manifest_that_changed_is_refused(folder: Path, keys: dict[Path, str]) -> None:
    file, public = next(iter(keys.items()))
    sign(folder, file)
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + " ")
    with pytest.raises(SignatureError, match="none of them is of this manifest"):
        check_signature(folder, [public])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2, "signatures": []}', '{"format": 1, "signatures": [{"key": "x"}]}']
)
def test_a_file_that_holds_no_signatures_is_refused(folder: Path, keys: dict[Path, str], text: str) -> None:
    (folder / SIGNATURE).write_text(text)
    with pytest.raises(SignatureError, match=r"manifest\.sig: cannot be read"):
        check_signature(folder, list(keys.values()))


def test_what_is_no_signature_or_key_in_base64_is_refused(folder: Path, keys: dict[Path, str]) -> None:
    public = next(iter(keys.values()))
    text = {"format": 1, "signatures": [{"key": public, "signature": "!"}, {"key": "!", "signature": "AAAA"}]}
    (folder / SIGNATURE).write_text(json.dumps(text))
    with pytest.raises(SignatureError, match="2 signatures by accepted keys"):
        check_signature(folder, [public, "!"])


@pytest.mark.parametrize(("text", "why"), [("not base64", "no public key"), ("AAAA", "has 3 bytes"), ("", "0 bytes")])
def test_what_is_no_public_key_is_refused(text: str, why: str) -> None:
    with pytest.raises(SignatureError, match=why):
        check_key(text)


def test_a_file_without_a_private_key_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(SignatureError, match=r"key\.pem: holds no unencrypted private key"):
        sign(folder, tmp_path / "key.pem")


def test_no_bundle_is_not_signed(tmp_path: Path, keys: dict[Path, str]) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: cannot be read"):
        sign(tmp_path, next(iter(keys)))


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key.pem"
    assert main(["keygen", str(file)]) == 0
    printed = capsys.readouterr()
    public = printed.out.strip()
    assert "key.pem" in printed.err
    assert main(["verify", str(folder), "--key", public]) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("not signed\n")
    assert main(["sign", str(folder), "--key", str(file)]) == 0
    assert capsys.readouterr().out == f"small-1 is signed by {public}\n"
    assert main(["verify", str(folder), "--key", public]) == 0
    assert f"signed by {public}; by a key that is accepted" in capsys.readouterr().out
    assert main(["verify", str(folder), "--key", "x"]) == 1
    assert "'x' is no public key" in capsys.readouterr().err


def test_a_damaged_bundle_is_not_signed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_key(tmp_path / "key.pem")
    (folder / "golden.npz").write_bytes(b"")
    assert main(["sign", str(folder), "--key", str(tmp_path / "key.pem")]) == 1
    assert "golden.npz: 0 bytes" in capsys.readouterr().err
    assert not (folder / SIGNATURE).exists()
