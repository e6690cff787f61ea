"""Ed25519 signatures over manifest.json, which holds the checksum of every other file. The one door to cryptography.

`manifest.sig` lies beside the manifest and holds one signature a key:

    {"format": 1, "signatures": [{"key": public key, "signature": ...}]}     both 32 and 64 bytes in base64

What is signed is CONTEXT and the bytes of the manifest as they are on disk. The public key in the file only says which
of the accepted keys is meant: a key that is not accepted proves nothing.
"""

import base64
import binascii
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import Field, ValidationError

from bundle.errors import ManifestError, SignatureError
from bundle.folder import SIGNATURE
from bundle.manifest import MANIFEST
from bundle.schema import Frozen

CONTEXT = b"adrank bundle manifest 1\n"
"""Goes before what is signed, so that a signature of anything else the key may have signed means nothing here."""
PUBLIC_BYTES = 32


class Signed(Frozen):
    """One signature."""

    key: Annotated[str, Field(max_length=64)]
    signature: Annotated[str, Field(max_length=128)]


class Signatures(Frozen):
    """The whole of manifest.sig."""

    format: Literal[1] = 1
    signatures: tuple[Signed, ...] = Field(max_length=16)


def make_key(path: Path) -> str:
    """Write a new private key to `path`, readable by its owner alone, and return the public one in base64.

    FileExistsError rather than overwriting a key.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _public(key)


def sign(folder: Path, key_file: Path) -> str:
    """Sign the bundle's manifest with the private key in `key_file`, and return the public one in base64.

    Signatures by other keys stay; one by the same key is replaced. SignatureError for a file that holds no such key,
    ManifestError without a manifest.
    """
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{key_file}: holds no unencrypted private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{key_file}: holds a key of another kind than Ed25519")
    public = _public(key)
    signature = base64.b64encode(key.sign(_message(folder))).decode()
    others = tuple(each for each in read_signatures(folder) if each.key != public)
    text = Signatures(signatures=(*others, Signed(key=public, signature=signature))).model_dump_json(indent=2) + "\n"
    _replace(folder / SIGNATURE, text.encode())
    return public


def read_signatures(folder: Path) -> tuple[Signed, ...]:
    """The bundle's signatures, none when it is not signed. SignatureError for a file that cannot be read."""
    path = folder / SIGNATURE
    try:
        return Signatures.model_validate_json(path.read_bytes()).signatures
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise SignatureError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def check_signature(folder: Path, keys: Collection[str]) -> int:
    """How many of the accepted public `keys` signed this manifest. SignatureError says why when none did."""
    if not keys:
        raise SignatureError("no public keys are given to hold signatures against")
    found = read_signatures(folder)
    if not found:
        raise SignatureError(f"{folder}: is not signed, and one of {len(keys)} keys must have signed it")
    ours = [each for each in found if each.key in keys]
    if not ours:
        raise SignatureError(
            f"{folder / SIGNATURE}: signed by {', '.join(each.key for each in found)}, accepted: {', '.join(keys)}"
        )
    message = _message(folder)
    valid = sum(_is_valid(each, message) for each in ours)
    if not valid:
        raise SignatureError(
            f"{folder / SIGNATURE}: {len(ours)} signatures by accepted keys, none of them is of this {MANIFEST}"
        )
    return valid


def check_key(text: str) -> str:
    """`text` if it is a public key in base64: 32 bytes, 44 characters. SignatureError otherwise."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SignatureError(f"{text!r} is no public key in base64: {error}") from error
    if len(raw) != PUBLIC_BYTES:
        raise SignatureError(f"{text!r} has {len(raw)} bytes, an Ed25519 public key has {PUBLIC_BYTES}")
    return text


def _is_valid(signed: Signed, message: bytes) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed.key, validate=True))
        key.verify(base64.b64decode(signed.signature, validate=True), message)
    except (InvalidSignature, ValueError):  # binascii.Error is a ValueError
        return False
    return True


def _message(folder: Path) -> bytes:
    try:
        return CONTEXT + (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ManifestError(f"{folder / MANIFEST}: cannot be read: {error.strerror}") from error


def _public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the one before or this one, whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
