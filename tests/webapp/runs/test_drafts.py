"""A run that is filled in by steps: kept as it is typed, begun from a run or a preset, estimated, shown as a spec, launched."""

from __future__ import annotations

import ast
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from jobs.models.inspect import inspect_model
from jobs.spec import RunSpec
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench
from webapp.accounts.models import Membership, Role, User
from webapp.runs.drafts import STEPS, sent, shown_form
from webapp.runs.models import Run, RunDraft, RunPreset, Worker
from webapp.runs.services.drafts import KEPT_DAYS, expire

GIB = 2**30


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


@pytest.fixture
def measured(bench: Bench) -> Bench:
    """The bench with a real tiny model, lengths in the report, and a worker."""
    make_tiny_model(bench.base_model.folder)
    bench.base_model.facts = inspect_model(bench.base_model.folder).to_json()
    bench.base_model.save()
    bench.version.report = {"characters": {"min": 40, "median": 400, "mean": 400, "p95": 1600, "max": 4000, "total": 4000}}
    bench.version.manifest["train"]["rows"] = 5000
    bench.version.save()
    Worker.objects.create(name="seen", queue="train", seen_at=now(), device={**stories.DEVICE, "memory_bytes": 8 * GIB})
    return bench


def begin(client: Client, **query: str) -> RunDraft:
    client.get(reverse("runs:new", args=["alice"], query=query))
    return RunDraft.objects.latest("created_at")


def at(draft: RunDraft, step: str) -> str:
    return reverse("runs:step", args=["alice", draft.pk, step])


def typed(draft: RunDraft, **changes: Any) -> dict[str, Any]:
    """What a browser sends of the page as it was drawn, with changes."""
    draft.refresh_from_db()
    return {**sent(shown_form(draft)).dict(), **changes}


def test_what_is_typed_is_kept_at_every_step_and_launches(alice: Client, bench: Bench) -> None:
    draft = begin(alice)
    for step, following in zip(STEPS, list(STEPS)[1:], strict=False):
        answer = alice.post(at(draft, step), typed(draft, name="mine", training_epochs="bad", settings_lora_rank="5", go=following))
        assert answer["Location"] == at(draft, following)
    assert 'value="bad"' in alice.get(at(draft, "settings")).text, "what is wrong is not lost"
    refused = alice.post(at(draft, "launch"), typed(draft, launch="1"))
    assert (refused.status_code, refused.context["step"], Run.objects.count()) == (422, "settings", 0)
    whole = typed(draft, training_epochs="2", launch="1")
    launched = alice.post(at(draft, "launch"), whole)
    run = Run.objects.get()
    assert launched["Location"] == reverse("runs:detail", args=[run.pk])
    again = [alice.post(at(draft, "launch"), whole), alice.get(at(draft, "launch"))]
    assert [answer["Location"] for answer in again] == [launched["Location"]] * 2, "a second press makes no second run"
    late = alice.post(reverse("runs:estimate", args=[bench.team.slug, draft.pk]), whole)
    assert (late.status_code, Run.objects.count()) == (204, 1)
    assert (run.name, run.spec["method"]["settings"]["rank"], run.spec["training"]["epochs"]) == ("mine", 5, 2.0)
    assert not RunDraft.objects.exists()


def test_reloading_the_link_of_a_new_run_adds_no_draft(alice: Client, bench: Bench) -> None:
    begin(alice)
    begin(alice)
    assert RunDraft.objects.count() == 1


def test_a_clone_lands_on_settings_and_tells_what_differs(alice: Client, bench: Bench) -> None:
    run = bench.launch(name="support-11", settings={"rank": 8})
    answer = alice.get(reverse("runs:new", args=["alice"], query={"clone": str(run.pk)}))
    draft = RunDraft.objects.get()
    assert answer["Location"] == at(draft, "settings")
    assert [each.changed for each in alice.get(at(draft, "settings")).context["begun"]] == [[]]
    alice.post(at(draft, "settings"), typed(draft, settings_lora_rank="16", training_learning_rate="1e-4", go="settings"))
    (begun,) = alice.get(at(draft, "settings")).context["begun"]
    assert begun.label == "support-11"
    assert [(change.field, change.before, change.now) for change in begun.changed] == [
        ("training_learning_rate", "by default", "1e-4"), ("settings_lora_rank", "8", "16"),
    ]  # fmt: skip
    alice.post(at(draft, "settings"), typed(draft, reset="run.settings_lora_rank"))
    draft.refresh_from_db()
    assert draft.values["settings_lora_rank"] == "8"


def test_presets_fill_the_form_and_a_team_keeps_its_own(alice: Client, bench: Bench) -> None:
    draft = begin(alice)
    alice.post(at(draft, "settings"), typed(draft, preset="safe"))
    draft.refresh_from_db()
    assert (draft.values["training_micro_batch"], draft.values["training_final_weights"]) == (1, "best")
    alice.post(at(draft, "settings"), typed(draft, settings_lora_rank="4", keep="1", preset_name="small"))
    kept = RunPreset.objects.get()
    assert (kept.team, kept.name, kept.values["settings_lora_rank"]) == (bench.team, "small", "4")
    alice.post(at(draft, "settings"), typed(draft, preset="fast"))
    alice.post(at(draft, "settings"), typed(draft, preset=str(kept.pk)))
    draft.refresh_from_db()
    assert draft.values["training_final_weights"] == "best"
    alice.post(at(draft, "settings"), typed(draft, forget=str(kept.pk)))
    assert not RunPreset.objects.exists()


def test_the_shown_spec_is_that_of_the_launched_run(alice: Client, bench: Bench) -> None:
    draft = begin(alice)
    alice.post(at(draft, "settings"), typed(draft, name="same", training_learning_rate="3e-4", seed="7", go="launch"))
    shown = alice.get(at(draft, "launch")).context["shown_spec"]
    alice.post(at(draft, "launch"), typed(draft, launch="1"))
    launched = RunSpec.from_json(Run.objects.get().spec)
    assert RunSpec.from_json(json.loads(shown.json)) == launched
    calls = [node for node in ast.walk(ast.parse(shown.python)) if isinstance(node, ast.Call)]
    (literal,) = [call.args[0] for call in calls if ast.unparse(call.func) == "RunSpec.from_json"]
    assert RunSpec.from_json(ast.literal_eval(literal)) == launched


def test_the_estimate_follows_the_form_and_keeps_it(alice: Client, measured: Bench) -> None:
    draft = begin(alice)
    url = reverse("runs:estimate", args=["alice", draft.pk])
    takes = alice.post(url, typed(draft, training_max_length="200")).context["estimate"].takes
    draft.refresh_from_db()
    assert draft.values["training_max_length"] == "200"
    assert takes.found.fits
    assert (takes.basis, takes.longest, takes.ahead) == ("characters", 200, 0)
    assert takes.cut == 0.35  # half of the rows have at most 100 tokens, 95 % at most 400, with a straight line between
    assert takes.timing is None, "no run yet"
    panel = alice.post(url, typed(draft, training_max_length="200")).context["estimate"]
    assert sum(part.size for part in panel.parts) == takes.found.memory.peak


def test_what_does_not_fit_is_said_with_remedies_that_fill_the_form(alice: Client, measured: Bench) -> None:
    Worker.objects.update(device={**stories.DEVICE, "memory_bytes": 705_000_000})
    draft = begin(alice)
    answer = alice.post(reverse("runs:estimate", args=["alice", draft.pk]), typed(draft, training_micro_batch="64"))
    panel = answer.context["estimate"]
    assert not panel.takes.found.fits
    assert panel.remedies
    assert panel.remedies[-1].peak_bytes < panel.takes.found.memory.peak
    alice.post(at(draft, "settings"), typed(draft, use=panel.remedies[0].use))
    draft.refresh_from_db()
    assert (draft.values["training_micro_batch"], draft.values["training_gradient_accumulation"]) == ("32", "4")


def test_drafts_of_others_are_nobodys_business(alice: Client, bench: Bench) -> None:
    draft = begin(alice)
    person = User.objects.create_user(username="bob")
    Membership.objects.create(team=bench.team, user=person, role=Role.MEMBER)
    alice.force_login(person)
    assert alice.get(at(draft, "settings")).status_code == 404
    assert alice.post(reverse("runs:discard-draft", args=["alice", draft.pk])).status_code == 404
    assert RunDraft.objects.count() == 1


def test_drafts_are_listed_discarded_and_forgotten(alice: Client, bench: Bench) -> None:
    draft = begin(alice)
    page = reverse("runs:drafts", args=["alice"])
    assert at(draft, "data") in alice.get(page).text
    alice.post(reverse("runs:discard-draft", args=["alice", draft.pk]))
    assert not RunDraft.objects.exists()
    begin(alice)
    assert expire() == 0
    RunDraft.objects.update(changed_at=now() - timedelta(days=KEPT_DAYS, seconds=1))
    assert expire() == 1


def test_data_that_teaches_nothing_blocks_the_launch(alice: Client, bench: Bench) -> None:
    bench.version.report = {"blocking": {"code": "one_class", "message": "All rows have one label.", "remedy": "Add others."}}
    bench.version.save()
    draft = begin(alice)
    assert "All rows have one label." in alice.get(at(draft, "check")).text
    assert alice.post(at(draft, "launch"), typed(draft, launch="1")).status_code == 422
    assert not Run.objects.exists()
