"""The catalogues of translations: whole in every language, each text with the places that its original has."""

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from tools import messages

# `%(name)s`, `{name}`, `<b>`: what a translation must have as its original has it.
PLACES = re.compile(r"%\(\w+\)[sdf]|%[sd%]|\{\w*\}|</?\w+>")


@pytest.fixture(scope="module")
def template() -> Catalog:
    return messages.extracted()


def texts(message):
    """A message's originals and its translations, each as a list."""
    return [list(words) if isinstance(words, (tuple, list)) else [words] for words in (message.id, message.string)]


def test_texts_of_templates_and_of_code_are_found(template):
    assert template.get("Runs") is not None, "a template's"
    assert template.get("New run") is not None
    assert any(isinstance(message.id, tuple) for message in template), "one with a plural"
    assert any(place.endswith(".py") for message in template for place, _line in message.locations)


@pytest.mark.parametrize("language", messages.TRANSLATED)
def test_everything_is_translated_with_its_places(language, template):
    catalog = messages.read(language)
    catalog.update(template, no_fuzzy_matching=True)
    assert [message.id for message in messages.untranslated(catalog)] == []
    faults = []
    for message in catalog:
        originals, translations = texts(message)
        if not message.id:
            continue
        # The form for one may leave the number out; each of the others has what the plural has.
        wanted = set(PLACES.findall(originals[-1]))
        for index, words in enumerate(translations):
            found = set(PLACES.findall(words))
            if found - wanted or (wanted - found and not (len(translations) > 1 and index == 0)):
                faults.append((message.id, words))
    assert faults == []


@pytest.mark.parametrize("language", messages.TRANSLATED)
def test_what_is_kept_is_what_the_pages_say_now(language, template):
    """`make messages` leaves nothing to do."""
    with messages.file_of(language).open("rb") as file:
        kept = {(message.context, message.id) for message in read_po(file, locale=language) if message.id}
    assert kept == {(message.context, message.id) for message in template if message.id}


def test_a_call_with_no_literal_is_passed_over(tmp_path, monkeypatch):
    source = b'from django.utils.translation import gettext as _, ngettext\n_("one")\n_(name)\nngettext("%(n)s row", "%(n)s rows", n)\n'
    monkeypatch.setattr(messages, "sources", lambda: iter([(messages.PROJECT / "webapp" / "x.py", source)]))
    found = messages.extracted()
    assert {message.id for message in found if message.id} == {"one", ("%(n)s row", "%(n)s rows")}
    assert Path("webapp/x.py").as_posix() in found.get("one").locations[0]
