"""The catalogues of translations, free of GNU gettext: `python -m tools.messages update|compile|missing`.

`update` brings `locale/*/LC_MESSAGES/django.po` up to what the pages and the code say now: new texts come in untranslated, texts that are
gone go. `compile` writes the `.mo` files that Django reads; `make setup` calls it. `missing` lists what a language lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

from webapp.settings.base import LANGUAGES
from webapp.settings.env import PROJECT

FOLDER = PROJECT / "locale"
WIDTH = 140
# Django's lazy forms of gettext's functions.
KEYWORDS = DEFAULT_KEYWORDS | {f"{name}_lazy": spec for name, spec in DEFAULT_KEYWORDS.items() if name.endswith("gettext")}
TRANSLATED = [code for code, _ in LANGUAGES if code != "en"]


def file_of(language: str) -> Path:
    """The catalogue of a language."""
    return FOLDER / language / "LC_MESSAGES" / "django.po"


def sources() -> Iterator[tuple[Path, bytes]]:
    """What holds texts for people: each file with its content as Python, templates so far as they can be."""
    for path in sorted((PROJECT / "webapp").rglob("*.py")):
        yield path, path.read_bytes()
    for path in sorted((PROJECT / "templates").rglob("*.*")):
        # Everything but calls of gettext is blanked out there; what is left of the indentation means nothing.
        lines = templatize(path.read_text(encoding="utf-8"), origin=str(path)).splitlines()
        yield path, "\n".join(line.strip() for line in lines).encode()


def extracted() -> Catalog:
    """All texts with the files that hold them."""
    catalog = Catalog()
    for path, content in sources():
        for _line, function, texts, _comments in extract_python(BytesIO(content), KEYWORDS, [], {"encoding": "utf-8"}):
            add(catalog, path, KEYWORDS[str(function)], texts)
    return catalog


def add(catalog: Catalog, path: Path, spec: Any, texts: Any) -> None:
    """One call's text, its plural and its context: of the call's `texts` those that its keyword's `spec` names, both as Babel has them."""
    given = texts if isinstance(texts, tuple) else (texts,)
    context = next((given[place[0] - 1] for place in spec or () if isinstance(place, tuple)), None)
    found = [given[place - 1] for place in spec or (1,) if isinstance(place, int)]
    if None in found or not found[0]:
        return  # a call with something that is no literal
    words = [str(text) for text in found]
    catalog.add(words[0] if len(words) == 1 else tuple(words), locations=[(str(path.relative_to(PROJECT)), 0)], context=context)


def read(language: str) -> Catalog:
    """The catalogue of a language; an empty one where there is none yet."""
    file = file_of(language)
    if not file.exists():
        return Catalog(locale=language, project="Graft", msgid_bugs_address="", last_translator="", language_team=language, fuzzy=False)
    with file.open("rb") as stream:
        return read_po(stream, locale=language)


def update() -> None:
    """Writes every catalogue anew, with the translations that it has."""
    template = extracted()
    for language in TRANSLATED:
        catalog = read(language)
        made = catalog.creation_date  # nothing of the header changes while the texts do not
        catalog.update(template, no_fuzzy_matching=True)
        catalog.obsolete.clear()
        catalog.creation_date, catalog.header_comment = made, f"# Graft in {catalog.locale.english_name}. Kept in order by `make messages`."
        file_of(language).parent.mkdir(parents=True, exist_ok=True)
        with file_of(language).open("wb") as stream:
            write_po(stream, catalog, width=WIDTH, include_lineno=False, sort_output=True)


def compile_all() -> None:
    """Writes the file beside each catalogue that Django reads."""
    for language in TRANSLATED:
        with file_of(language).with_suffix(".mo").open("wb") as stream:
            write_mo(stream, read(language))


def untranslated(catalog: Catalog) -> Iterator[Message]:
    """The texts without a translation, or with a plural form too few."""
    for message in catalog:
        words = message.string if isinstance(message.string, (tuple, list)) else (message.string,)
        if message.id and not all(words):
            yield message


def missing() -> int:
    """Prints what each language lacks of the texts there are now; how many there are."""
    template, count = extracted(), 0
    for language in TRANSLATED:
        catalog = read(language)
        catalog.update(template, no_fuzzy_matching=True)
        for message in untranslated(catalog):
            count += 1
            sys.stdout.write(f"{language}: {message.id!r}\n")
    return count


def main(command: str) -> int:
    """The exit code: 1 where something is missing."""
    if command == "missing":
        return int(missing() > 0)
    {"update": update, "compile": compile_all}[command]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
