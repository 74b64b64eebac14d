"""Short texts in many languages, out of the message catalogues that Django and Sphinx ship: `kind: import` names `messages`."""

import gettext
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pyarrow as pa
import xxhash

from ..errors import EnvironmentUnfit

PACKAGES = {"Django": "django", "Sphinx": "sphinx"}
"""Distributions, and their folders. Both are under the BSD licence, translations too."""
VARIANTS = {"nb_NO": "nb", "pt_BR": "pt", "zh_CN": "zh", "zh_TW": "zh", "zh_Hans": "zh", "zh_Hant": "zh"}
"""Catalogues of one language that is written, or spelt, in several ways; of others that of the language itself is read."""
MARKS = re.compile(
    r"%\([^)]*\)[#0\- +.\d]*[a-z]|%[#0\- +]*[a-zA-Z]|\{[^{}]*\}"  # placeholders
    r"|<[^<>]*>|&[a-z]+;|:[a-z:]+:`[^`]*`|``[^`]*``|https?://\S+|\\[nt]"  # tags, entities, roles, addresses
)


def messages(letters: int = 12, at_least: int = 200, at_most: int = 500) -> pa.Table:
    """`text` in a `language` (ISO 639-1), and the English `message` that it says; placeholders and tags are taken out.

    Texts have so many `letters` or more and are of one language only; languages have `at_least` so many of them, and of
    those that have more than `at_most` some stay, chosen by the message. Raises EnvironmentUnfit without the extra `languages`.
    """
    found = {(language, text): message for language, text, message in _found() if _letters(text) >= letters}
    languages_of = Counter(text for _, text in found)
    chosen: dict[str, list[tuple[int, str, str]]] = {}
    for (language, text), message in found.items():
        if languages_of[text] == 1:
            chosen.setdefault(language, []).append((xxhash.xxh3_64_intdigest(message.encode()), text, message))
    rows = [
        (text, language, message)
        for language, texts in sorted(chosen.items())
        if len(texts) >= at_least
        for _, text, message in sorted(texts)[:at_most]
    ]
    return pa.table(dict(zip(("text", "language", "message"), map(list, zip(*rows, strict=True)), strict=True)))


@cache
def _found() -> tuple[tuple[str, str, str], ...]:
    return tuple(dict.fromkeys(_translated()))


def _translated() -> Iterator[tuple[str, str, str]]:
    """(language, text, message) of all catalogues; English is what the others translate."""
    for package, folder in PACKAGES.items():
        for path in sorted(_folder(package, folder).rglob("*.mo")):
            locale = path.parts[-3]
            language = VARIANTS.get(locale, locale)
            if not language.islower() or not language.isalpha():
                continue
            with path.open("rb") as file:
                catalogue: dict[str | tuple[str, int], str] = vars(gettext.GNUTranslations(file))["_catalog"]
            for key, translated in catalogue.items():
                message = key if isinstance(key, str) else key[0]
                message = message.partition("\4")[2] or message  # what stands before says where it is used
                if translated != message:
                    yield language, _plain(translated), message
                    yield "en", _plain(message), message


def _folder(package: str, folder: str) -> Path:
    try:
        return Path(str(distribution(package).locate_file(folder)))
    except PackageNotFoundError:
        raise EnvironmentUnfit(
            f"the catalogues come with {package}, which is not installed; pip install 'collegium[languages]'"
        ) from None


@cache
def _plain(text: str) -> str:
    return " ".join(MARKS.sub(" ", text).split())


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
