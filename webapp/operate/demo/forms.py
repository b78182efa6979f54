"""Reads the forms of a page as a browser does: every field with the value it would send untouched."""

from __future__ import annotations

from html.parser import HTMLParser

_UNSENT = frozenset({"submit", "button", "image", "file", "reset"})


class _Fields(HTMLParser):
    """Collects the fields of each form. A field belongs to the form it stands in, or to the one its `form` attribute names."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.values: list[dict[str, str]] = []
        self._inside: int | None = None
        self._select: str | None = None
        self._textarea: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a form or takes a field."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(given)
            self.values.append({})
            self._inside = len(self.forms) - 1
        elif tag == "input" and given.get("type", "text") not in _UNSENT:
            chosen = given.get("type") not in ("checkbox", "radio") or "checked" in given
            if chosen and "name" in given:
                self._put(given["name"], given.get("value", "on" if given.get("type") == "checkbox" else ""))
        elif tag == "select":
            self._select = given.get("name")
        elif tag == "option" and self._select is not None:
            # A browser sends the first option where none is marked.
            if "selected" in given or self._select not in self._current():
                self._put(self._select, given.get("value", ""))
        elif tag == "textarea":
            self._textarea = given.get("name")
            self._put(self._textarea or "", "")

    def handle_endtag(self, tag: str) -> None:
        """Closes what was opened."""
        if tag == "form":
            self._inside = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea":
            self._textarea = None

    def handle_data(self, data: str) -> None:
        """The text of a textarea, whose first line break does not count."""
        if self._textarea:
            self._put(self._textarea, self._current().get(self._textarea, "") + data.removeprefix("\n"))

    def _current(self) -> dict[str, str]:
        return {} if self._inside is None else self.values[self._inside]

    def _put(self, name: str, value: str) -> None:
        if self._inside is not None and name:
            self.values[self._inside][name] = value


def form_values(page: str, field: str) -> dict[str, str]:
    """The values of the first form of a page that has a field of that name. Raises `LookupError` where there is none."""
    reader = _Fields()
    reader.feed(page)
    for values in reader.values:
        if field in values:
            return values
    raise LookupError(f"no form with a field '{field}'")
