"""Codecs: how values are encrypted before they leave the process. `AesGcm` is ready to use.

    codec = AesGcm(keys={"2026": key}, current="2026", memory=["notes", "patient.name"])
    app = perdure.App(codec=codec)
    client = perdure.connect(codec=codec)

The database never sees a key. `sql/coordination/encryption.md` says what is encrypted, and to what
each value is bound.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perdure.errors import InvalidArgument

KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_ID = 40


class Codec(Protocol):
    """The interface of a codec. Write your own to keep keys wherever you like.

    `place` says what a value is and to whom it belongs. What was encrypted for one place must not
    be decrypted at another.
    """

    @property
    def memory(self) -> Sequence[str]:
        """Return the paths of memories whose values, and those beneath them, are encrypted."""

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        """Encrypt a value; return the id of the key and the encrypted bytes.

        The id has 1 to 40 letters, digits, `.`, `_` or `-`; the bytes are at least 12. The same
        three arguments must give the same result, since a repeated call must send the same. Another
        salt must give another result, so that nobody sees which values are equal.
        """

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        """Decrypt a value.

        Raises LookupError for an unknown key, and ValueError for a value that was not encrypted
        with it for this place.
        """

    def digest(self, key: str, data: bytes) -> bytes:
        """Return at least 8 bytes that differ for different data, and say nothing without the key.

        Raises LookupError for an unknown key.
        """


def check_codec(given: object) -> None:
    """Refuse what is neither a codec nor None. Raises InvalidArgument."""
    if given is not None and not all(hasattr(given, name) for name in _OF_A_CODEC):
        raise InvalidArgument(
            f"an object of type {type(given).__name__} is not a codec",  # it may be a key
            hint="Give a perdure.codecs.AesGcm, or an object with " + ", ".join(_OF_A_CODEC) + ".",
        )


_OF_A_CODEC = ("memory", "encode", "decode", "digest")


class AesGcm:
    """Encrypt with AES-256 in Galois counter mode: `AesGcm(keys={"2026": key}, current="2026")`.

    - `keys`: 32 random bytes each, by name. `AesGcm.new_key()` draws one.
    - `current`: the key that encrypts. Values are decrypted with the key they name.
    - `memory`: the paths of memories that are encrypted.

    Needs `pip install "perdure[codec]"`. Raises InvalidArgument for a key of another length.
    """

    def __init__(
        self, keys: Mapping[str, bytes], current: str, *, memory: Sequence[str] = ()
    ) -> None:
        if current not in keys:
            raise InvalidArgument(
                "the current key is not among the keys",
                detail=f"The keys are named {sorted(keys)}.",
                hint="Give the name of a key as current, not the key itself.",
            )
        if isinstance(memory, str):
            raise InvalidArgument("memory is a list of paths", hint=f"Write memory=[{memory!r}].")
        self._keys = {name: _Key(name, secret) for name, secret in keys.items()}
        self.current = current
        self.memory = tuple(memory)

    def __repr__(self) -> str:
        """Show the names of the keys, not the keys."""
        return f"AesGcm(keys={sorted(self._keys)}, current={self.current!r})"

    @staticmethod
    def new_key() -> bytes:
        """Return a new random key."""
        return secrets.token_bytes(KEY_BYTES)

    def encode(self, plain: bytes, place: bytes, salt: bytes) -> tuple[str, bytes]:
        """Encrypt with the current key."""
        return self.current, self._keys[self.current].encrypt(plain, place, salt)

    def decode(self, key: str, sealed: bytes, place: bytes) -> bytes:
        """Decrypt with the named key. Raises LookupError and ValueError."""
        return self._keys[key].decrypt(sealed, place)

    def digest(self, key: str, data: bytes) -> bytes:
        """Return a keyed hash. Raises LookupError."""
        return _mac(self._keys[key].for_digests, data)


class _Key:
    """A key, and the keys that are derived from it, one for each use.

    The nonce is a keyed hash of all that is encrypted. So it repeats only for the same value at the
    same place under the same salt, after any number of values, forks and restored machines.
    """

    __slots__ = ("_cipher", "_for_nonces", "_name", "for_digests")

    def __init__(self, name: str, secret: bytes):
        if len(secret) != KEY_BYTES:
            raise InvalidArgument(
                f"key {name!r} does not have {KEY_BYTES} bytes",
                hint="Make one with AesGcm.new_key(), and keep it where your secrets are.",
            )
        if not 0 < len(name) <= _MAX_ID or not _is_plain(name):
            raise InvalidArgument(
                f"{name!r} is not a name for a key",
                hint=f"Use at most {_MAX_ID} letters, digits, dots, dashes and underscores.",
            )
        self._name = name.encode()
        self._cipher = _aes_gcm(_mac(secret, b"perdure: encrypt"))
        self._for_nonces = _mac(secret, b"perdure: nonces")
        self.for_digests = _mac(secret, b"perdure: digests")

    def encrypt(self, plain: bytes, place: bytes, salt: bytes) -> bytes:
        lengths = b"%d %d " % (len(place), len(salt))
        nonce = _mac(self._for_nonces, lengths + place + salt + plain)[:_NONCE_BYTES]
        sealed: bytes = self._cipher.encrypt(nonce, plain, self._name + b" " + place)
        return nonce + sealed

    def decrypt(self, sealed: bytes, place: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain: bytes = self._cipher.decrypt(nonce, rest, self._name + b" " + place)
        except InvalidTag as error:
            raise ValueError("not sealed with this key for this place") from error
        return plain


def _is_plain(name: str) -> bool:
    return name.isascii() and all(letter.isalnum() or letter in "._-" for letter in name)


def _mac(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")


def _aes_gcm(secret: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise InvalidArgument(
            "AesGcm needs the package cryptography", hint='pip install "perdure[codec]"'
        ) from error
    return AESGCM(secret)
