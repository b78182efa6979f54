"""A20: what a stranger's chat template writes is text on the model's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse

from tests.attacks.corpus import change, make_model
from tests.webapp.cast import Cast
from tests.webapp.conftest import cast  # noqa: F401 - a fixture
from webapp.catalog.models import BaseModel
from webapp.catalog.services.fetch import fetch
from webapp.settings.env import ENV

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def test_a20_what_a_template_writes_is_text(cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    model = make_model(tmp_path / "models" / "theirs")
    change(model, "tokenizer_config.json", chat_template="{{ '" + MARKUP + "' }}", bos_token="<b onclick=alert(3)>")
    monkeypatch.setattr(ENV, "model_folders", str(model.parent))
    answer = cast.client(cast.bob).post(reverse("catalog:add", args=["night", "folder"]), {"path": str(model), "name": "Theirs"})
    assert answer.status_code == 302
    added = BaseModel.objects.get(name="Theirs")
    fetch(added.pk)
    page = cast.client(cast.vera).get(reverse("catalog:detail", args=[added.pk])).content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b onclick=alert(3)&gt;" in page
    assert not [tag for tag in ("<script>alert", "<img src=x", "<b onclick") if tag in page]
