"""Advice beside the form: from own runs and rules, for the workers that there are, filled in by one click."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from jobs.errors import UserError
from jobs.models.inspect import inspect_model
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.test_views import form_data
from webapp.runs.forms import RunForm
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.services.advise import advise, least_device
from webapp.runs.services.past import past_runs

ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(300)]
GIB = 2**30


@pytest.fixture
def desk(db: None, settings: Any, tmp_path: Any) -> Bench:
    """Alice's team with a real tiny model, 300 rows, and two workers."""
    settings.GRAFT_VAR = tmp_path
    ready = make_bench(rows=ROWS)
    make_tiny_model(ready.base_model.folder)
    ready.base_model.facts = inspect_model(ready.base_model.folder).to_json()
    ready.base_model.save()
    for name, gibibytes in (("large", 64), ("small", 8)):
        Worker.objects.create(
            name=name, queue="train", seen_at=now(), device={**stories.DEVICE, "name": name, "memory_bytes": gibibytes * GIB}
        )
    return ready


@pytest.fixture
def alice(desk: Bench) -> Client:
    client = Client()
    client.force_login(desk.user)
    return client


def url(name: str = "advice") -> str:
    return reverse(f"runs:{name}", args=["alice"])


def sent(form: RunForm) -> dict[str, Any]:
    """What a browser sends of a form that it was shown."""
    values = {name: form[name].value() for name in form.fields}
    return {name: value for name, value in values.items() if value not in (None, "", []) and value is not False}


def asked(desk: Bench, **changes: Any) -> dict[str, Any]:
    return advise(desk.team, desk.recipe(**changes).spec(), dataset_version=desk.version, base_model=desk.base_model, wish="quality")


def test_own_finished_trainings_are_what_is_known_of_the_past(desk: Bench) -> None:
    mine = stories.finished(desk.launch(name="mine", settings={"rank": 4}, training={"epochs": 2.0, "precision": "auto"}))
    stories.failed(desk.launch(name="broken"))
    stories.finished(desk.launch(name="looked at", kind=Kind.ANALYSE))
    theirs = make_bench("charlie", ROWS)
    stories.finished(theirs.launch(base_model=desk.base_model, name="theirs"))
    (found,) = past_runs(desk.team)
    assert (found.name, found.method, found.settings, found.training) == ("mine", "lora", {"rank": 4}, {"epochs": 2.0})
    assert (found.base, found.task, found.rows, found.loss_before, found.loss_after) == ("Tiny", "causal_lm", 570, 3.1, 0.12)
    latest = mine.summary["latest"]
    assert (found.seconds, found.peak_bytes) == (latest["elapsed_seconds"], mine.summary["peak_memory_bytes"])
    assert found.tokens_per_second == latest["tokens"] / latest["elapsed_seconds"]
    assert [run.name for run in past_runs(theirs.team)] == ["theirs"]


def test_a_run_that_was_not_measured_says_nothing(desk: Bench) -> None:
    run = stories.finished(desk.launch())
    del run.summary["evals"]["test"]["base"]
    run.save()
    assert past_runs(desk.team) == []
    gone = stories.finished(desk.launch())
    gone.method = "no_such_method"
    gone.save()
    assert past_runs(desk.team) == []


def test_the_engine_answers_in_the_box_for_the_least_worker(desk: Bench) -> None:
    stories.finished(desk.launch(name="mine", settings={"rank": 4}))
    theirs = make_bench("charlie", ROWS)
    stories.finished(theirs.launch(base_model=desk.base_model, method="vera", name="theirs"))
    answer = asked(desk)
    assert (answer["device"]["name"], answer["estimate"]["device_bytes"]) == ("small", 8 * GIB)
    assert answer["fits"] is True
    first, *rest = answer["recommendations"]
    assert first["method"] == {"id": "lora", "settings": {"rank": 4}, "adapters": []}
    assert "“mine”" in first["reason"]
    assert len(rest) == 2
    assert all("theirs" not in one["reason"] and one["method"]["id"] != "vera" for one in rest)
    assert all(one["source"] for one in rest)


def test_living_workers_count_before_those_that_were_seen_once(desk: Bench) -> None:
    Worker.objects.filter(name="small").update(seen_at=desk.user.date_joined.replace(year=2020))
    assert least_device()["name"] == "large"
    Worker.objects.update(seen_at=desk.user.date_joined.replace(year=2020))
    assert least_device()["name"] == "small"
    Worker.objects.all().delete()
    with pytest.raises(UserError) as refused:
        asked(desk)
    assert refused.value.code == "no_worker"


def test_three_are_shown_each_with_what_it_takes_why_and_by_what_source(alice: Client, desk: Bench) -> None:
    answer = alice.post(url(), {**form_data(desk), "wish": "memory"}, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "<form" not in answer.text, "the panel alone"
    panel = answer.context["panel"]
    assert len(panel.choices) == 3
    peaks = [choice.need.peak_bytes for choice in panel.choices]
    assert peaks == sorted(peaks)
    assert all(choice.need.fits and choice.reason in answer.text.replace("&#x27;", "'") and choice.source for choice in panel.choices)
    assert "small" in answer.text
    assert "The form as it stands:" in answer.text
    assert answer.context["wish"] == "memory"


def test_what_is_advised_fills_the_form_and_keeps_what_was_typed(alice: Client, desk: Bench) -> None:
    typed = form_data(desk, name="keep me", evaluation_rows="7", settings_lora_rank="64", training_epochs="9", evaluation_generate=[])
    whole = alice.post(url(), {**typed, "wish": "memory"})
    assert whole.status_code == 200
    choice = next(choice for choice in whole.context["panel"].choices if "4 bits" in choice.reason)
    filled = alice.post(url(), {**typed, "use": choice.use})
    form = filled.context["form"]
    assert "The form is filled in as advised." in filled.text
    assert (form["name"].value(), str(form["evaluation_rows"].value()), form["evaluation_generate"].value()) == ("keep me", "7", False)
    assert (form["method"].value(), form["settings_qlora_rank"].value(), form["training_epochs"].value()) == ("qlora", "64", "3.0")
    assert form["training_gradient_checkpointing"].value() is True
    launched = alice.post(reverse("runs:whole", args=["alice"]), sent(form))
    run = Run.objects.get()
    assert launched["Location"] == reverse("runs:detail", args=[run.id])
    assert (run.method, run.spec["method"]["settings"]["rank"], run.spec["training"]["micro_batch"]) == ("qlora", 64, 1)


def test_what_does_not_fit_is_asked_for_less_by_one_click_each(alice: Client, desk: Bench) -> None:
    rows = [json.dumps({"prompt": f"{number} " * 500, "completion": "even"}) for number in range(300)]
    (desk.version.folder / "train.jsonl").write_text("\n".join(rows))
    typed = form_data(desk, training_micro_batch="64", evaluation_generate=[], evaluation_retention=[])
    whole = alice.post(url(), typed).context["panel"].need
    device = {**stories.DEVICE, "name": "small", "memory_bytes": round(0.9 * whole.peak_bytes)}
    Worker.objects.filter(name="small").update(device=device)
    answer = alice.post(url(), typed)
    panel = answer.context["panel"]
    assert (whole.fits, panel.need.fits, panel.need.peak_bytes) == (True, False, whole.peak_bytes)
    peaks = [panel.need.peak_bytes, *(remedy.peak_bytes for remedy in panel.remedies)]
    assert len(peaks) > 1
    assert peaks == sorted(peaks, reverse=True)
    assert [remedy.fits for remedy in panel.remedies] == [False] * (len(peaks) - 2) + [True]
    assert "The form as it stands does not fit" in answer.text
    assert "Even all of them" not in answer.text
    first = panel.remedies[0]
    form = alice.post(url(), {**typed, "use": first.use}).context["form"]
    assert (form["training_micro_batch"].value(), form["training_gradient_accumulation"].value()) == ("32", "4")
    assert "training_max_length" not in QueryDict(first.use), "the length stays left to the data"


def test_where_nothing_helps_it_says_so(alice: Client, desk: Bench) -> None:
    Worker.objects.filter(name="small").update(device={**stories.DEVICE, "name": "small", "memory_bytes": 1_000_000})
    answer = alice.post(url(), form_data(desk, method="full"))
    assert not any(choice.need.fits for choice in answer.context["panel"].choices)
    assert "Nothing that is known here saves enough" in answer.text


def test_a_form_with_faults_gets_no_advice_but_its_faults(alice: Client, desk: Bench) -> None:
    data = form_data(desk, training_micro_batch="none")
    part = alice.post(url(), data, headers={"HX-Request": "true"})
    assert part.status_code == 200
    assert "There is no advice." in part.text
    assert "Micro-batch: Enter a whole number." in part.text
    assert alice.post(url(), data).status_code == 422
    assert "greater than 0" in alice.post(url(), form_data(desk, training_epochs="-1")).text
    Worker.objects.all().delete()
    assert "No worker for trainings has been seen" in alice.post(url(), form_data(desk)).text


def test_a_link_fills_the_form(alice: Client, desk: Bench) -> None:
    query = {"method": "qlora", "settings_qlora_rank": "8", "evaluation_generate": "false", "csrf": "x", "training_epochs": "1.5"}
    form = alice.get(reverse("runs:whole", args=["alice"], query=query)).context["form"]
    assert (form["method"].value(), form["settings_qlora_rank"].value(), form["training_epochs"].value()) == ("qlora", "8", "1.5")
    assert form["evaluation_generate"].value() is False
    nonsense = {"method": "none", "dataset_version": "x", "base_model": "x", "task": "x", "settings_lora_rank": "x", "adapters": "x"}
    for name, value in nonsense.items():
        assert alice.get(reverse("runs:whole", args=["alice"], query={name: value})).status_code == 200, name


def test_another_teams_data_is_refused(desk: Bench) -> None:
    charlie = Client()
    charlie.force_login(make_bench("charlie").user)
    assert charlie.post(url(), form_data(desk)).status_code == 404
    answer = charlie.post(reverse("runs:advice", args=["charlie"]), form_data(desk), headers={"HX-Request": "true"})
    assert "There is no advice." in answer.text
    assert "panel" not in answer.context
