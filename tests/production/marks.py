"""Marks are values that occur nowhere by chance. A search finds them in any form."""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet

from tests.stand_in import sub_of, user

PERSON, SECRET, TYPED, GROUP = "qxzwkvjhp", "vkjqhzxws", "jqxzvwhkt", "zhqkxwvjg"
"""Beginnings of marks: for personal values, for secrets, for logins that somebody types into one of
Airflow's forms, and for groups' names.
"""

ANY_MARK = f"(?i:{PERSON}|{SECRET}|{TYPED}|{GROUP})"

ATTRIBUTES = (
    *(
        "address",
        "birthdate",
        "email",
        "family_name",
        "gender",
        "given_name",
        "locale",
        "middle_name",
    ),
    *("name", "nickname", "phone_number", "picture", "preferred_username", "profile", "website"),
    *("zoneinfo", "custom:badge", "dev:custom:badge"),
)
"""Cognito's standard attributes, and a pool's own."""

CONTEXT = 60
"""Characters on each side of a find that a failing test shows."""


def mark(what: str, stem: str = PERSON) -> str:
    """Make a value that occurs nowhere by chance; `what` says which value it is if a test fails."""
    return f"{stem.capitalize()}-{what}-\N{LATIN SMALL LETTER E WITH DIAERESIS}"


def login(number: int | str, stem: str = PERSON) -> str:
    """Make an email that is a login."""
    return f"{stem.capitalize()}.Login{number}@example.org"


def person(number: int | str, *, stem: str = PERSON, **attributes: str) -> Any:
    """Make a user of the pool with a mark in each attribute and in the user name; the sub has
    none.
    """
    values = {name: mark(f"{name.replace(':', '_')}{number}", stem) for name in ATTRIBUTES}
    values |= {"email": login(number, stem), **attributes}
    found = user(login(number, stem))
    pairs = [
        {"Name": "sub", "Value": sub_of(found)},
        *({"Name": name, "Value": values[name]} for name in values),
    ]
    return found | {"Username": mark(f"username{number}", stem), "Attributes": pairs}


@dataclass(frozen=True)
class Found:
    """A mark that was found; printed, it shows no mark."""

    place: str
    around: str

    def __str__(self) -> str:
        return f"{self.place}: …{self.around}…"


class Search:
    """Looks for marks with some beginnings, and for some whole values, in texts and in bytes."""

    def __init__(self, stems: Iterable[str] = (), values: dict[str, str] | None = None) -> None:
        self._needles: dict[bytes, str] = {}
        self._needles_in_small: dict[bytes, str] = {}
        for stem in stems:
            for written in (stem, stem.upper(), stem.capitalize()):
                self._needles |= dict.fromkeys(_encode_base64(written), stem)
            self._needles_in_small |= dict.fromkeys(_make_spellings(stem), stem)
        for name, value in (values or {}).items():
            self._needles |= dict.fromkeys([value.encode(), *_encode_base64(value)], name)

    def search_bytes(self, place: str, content: bytes) -> list[Found]:
        """Search the content of a file or a value, as it is and decoded; at most one find for each
        mark.
        """
        finds = []
        for form in _decode(content):
            small = form.lower()
            hits = [
                (form, needle, which) for needle, which in self._needles.items() if needle in form
            ]
            hits += [
                (small, needle, which)
                for needle, which in self._needles_in_small.items()
                if needle in small
            ]
            finds += [
                Found(place, self._quote_context(text, needle, which))
                for text, needle, which in hits
            ]
        return finds

    def search_text(self, place: str, text: str) -> list[Found]:
        """Search a text line by line; the place names the line."""
        finds = self.search_bytes(place, text.encode("utf-8", "surrogatepass"))
        if not finds:
            return []
        lines = [
            self.search_bytes(f"{place}:{at}", line.encode("utf-8", "surrogatepass"))
            for at, line in _split_lines(text)
        ]
        return [find for line in lines for find in line] or finds

    def search_value(self, place: str, value: Any) -> list[Found]:
        """Search a value from a column of a database."""
        return self.search_bytes(
            place,
            value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass"),
        )

    def _quote_context(self, text: bytes, needle: bytes, which: str) -> str:
        """Quote what stands around a find, with each mark replaced by its meaning."""
        if needle != which.encode():
            return f"«{which}», in another form"
        at = text.index(needle)
        around = text[max(at - CONTEXT, 0) : at + CONTEXT].decode("utf-8", "replace")
        return re.sub(rf"{ANY_MARK}[-.]?(\w*)[^\s'\",]*", r"«\1»", around).replace("\n", " ")


def _split_lines(text: str) -> Iterator[tuple[int, str]]:
    return ((at, line) for at, line in enumerate(text.splitlines(), start=1))


def _make_spellings(stem: str) -> list[bytes]:
    """Spellings of a stem in any case of letters: as it is, percent-encoded or escaped letter by
    letter, in hex, in UTF-16.
    """
    found = [stem.encode(), stem.encode("utf-16-le")]
    for written in (stem, stem.upper(), stem.capitalize()):
        codes = [f"{byte:02x}" for byte in written.encode()]
        found += [
            "".join(f"{before}{code}" for code in codes).encode()
            for before in ("", "%", "%25", "\\u00", "\\x")
        ]
    return found


def _encode_base64(text: str) -> list[bytes]:
    """A text in base64, for each of the three places in a group of four where it can begin."""
    found = []
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text.encode())
        inner = whole[
            -(-before * 8 // 6) : len(whole) // 4 * 4 - 4
        ]  # without what depends on the neighbours
        found += [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]
    return found


def _decode(content: bytes, depth: int = 2) -> Iterator[bytes]:
    """The content, and its decoded form if all of it is hex, base64 or compressed."""
    yield content
    if not depth or len(content) < len(PERSON):
        return
    decoders = (
        binascii.unhexlify,
        lambda packed: base64.b64decode(packed, validate=True),
        zlib.decompress,
    )
    for decode in decoders:
        try:
            unpacked = decode(content.strip().strip(b'"'))
        except (ValueError, zlib.error):
            continue
        yield from _decode(unpacked, depth - 1)


def decrypt(value: Any, key: str) -> Any:
    """Decrypt a value that Airflow encrypted with its Fernet key; any other value comes back as it
    is.
    """
    text = value if isinstance(value, str) else ""
    if not text.startswith("gAAAAA"):
        return value
    return Fernet(key.encode()).decrypt(text.encode())
