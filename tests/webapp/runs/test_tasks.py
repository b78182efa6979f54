"""Tasks other than writing on the pages of runs: which are offered and why others are not, and what a run shows of its task's figures."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from jobs.errors import UserError
from jobs.spec import TASKS, Task
from tests.webapp.runs import stories
from tests.webapp.runs.rows import Bench, make_bench
from tests.webapp.runs.test_views import form_data
from webapp.accounts.models import User
from webapp.core.formats import THIN
from webapp.runs.models import Run
from webapp.runs.states import State

BERT = {"architecture": "BertForMaskedLM", "tasks": ["sequence_classification", "regression", "question_answering", "multiple_choice"]}
LLAMA = {"architecture": "LlamaForCausalLM", "tasks": ["causal_lm", "sequence_classification", "regression"], "has_biases": False}
LABELLED = {"format": "classification", "columns": {"text": "text", "label": "label"}, "instruction": ""}
PAIRS = {"format": "sequence_classification", "columns": {"text": "a", "text_b": "b", "label": "label"}, "instruction": ""}
SQUAD = {"format": "question_answering", "columns": {"question": "q", "context": "c", "answers": "a"}, "instruction": ""}


@pytest.fixture
def encoder(bench: Bench) -> Bench:
    """Alice's bench with an encoder and rows with labels."""
    return settle(bench, BERT, LABELLED)


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def settle(bench: Bench, facts: dict[str, Any], mapping: dict[str, Any], labels: int = 3) -> Bench:
    bench.base_model.facts = facts
    bench.base_model.save()
    bench.version.mapping, bench.version.report = mapping, {"labels": {"distinct": labels, "counts": []}}
    bench.version.save()
    return bench


def new(bench: Bench) -> str:
    return reverse("runs:whole", args=[bench.team.slug])


# -- the form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "mapping", "fitting"),
    [
        (LLAMA, LABELLED, ["causal_lm", "sequence_classification"]),
        (LLAMA, PAIRS, ["sequence_classification"]),
        (BERT, LABELLED, ["sequence_classification"]),
        (BERT, SQUAD, ["question_answering"]),
        (LLAMA, SQUAD, []),
        ({}, None, list(TASKS)),
    ],
)
def test_the_tasks_offered_are_those_that_model_and_rows_serve(
    alice: Client, bench: Bench, facts: dict[str, Any], mapping: Any, fitting: list[Task]
) -> None:
    settle(bench, facts, mapping)
    answer = alice.get(new(bench))
    cards = answer.context["form"].tasks()
    assert [card.entry.id for card in cards if not card.obstacle] == fitting
    assert [card.entry.id for card in cards if card.chosen] == (fitting[:1] or ["causal_lm"])
    for card in cards:
        assert card.entry.name in answer.text
        assert escape(card.entry.help) in answer.text


def test_reasons_name_the_model_the_columns_or_the_labels(alice: Client, bench: Bench) -> None:
    def reasons(facts: dict[str, Any], mapping: dict[str, Any], labels: int = 3) -> dict[str, str]:
        settle(bench, facts, mapping, labels)
        return {card.entry.id: card.obstacle for card in alice.get(new(bench)).context["form"].tasks()}

    found = reasons(BERT, PAIRS)
    assert found["causal_lm"] == "Tiny can be trained for: classification, rating, finding answers, multiple choice"
    assert found["question_answering"] == "it needs rows of question, context, answers; those of the dataset hold text, label"
    assert reasons(LLAMA, PAIRS)["causal_lm"].startswith("it needs rows of chats, prompts with completions, or plain text;")
    assert reasons(BERT, LABELLED, 1)["sequence_classification"] == "it needs from 2 to 1,000 different labels, and the dataset has 1"
    chats = {"format": "messages", "columns": {"messages": "messages"}, "instruction": ""}
    assert reasons(BERT, chats)["sequence_classification"] == "the rows of the dataset have no column for 'label'"
    assert reasons(BERT, {**chats, "columns": {"messages": "m", "label": "l"}})["sequence_classification"] == ""
    assert reasons(BERT, chats)["multiple_choice"] == "the rows of the dataset have no column for 'choices'"


def test_a_task_that_does_not_fit_is_refused_by_the_server_at_its_field(alice: Client, encoder: Bench) -> None:
    for task in ("causal_lm", "regression", "seq2seq_lm"):
        answer = alice.post(new(encoder), form_data(encoder, task=task))
        assert answer.status_code == 422
        assert list(answer.context["form"].errors) == ["task"]
        assert "A run cannot train for the task" in answer.text
    assert alice.post(new(encoder), form_data(encoder, task="poetry")).status_code == 422
    with pytest.raises(UserError) as refused:
        encoder.launch(task="question_answering")
    assert (refused.value.code, refused.value.where) == ("task_unfit", {"field": "task"})
    assert not Run.objects.exists()


def test_a_run_of_a_task_is_launched_and_cloned(alice: Client, encoder: Bench) -> None:
    assert alice.post(new(encoder), form_data(encoder)).status_code == 302
    run = Run.objects.get()
    assert run.spec["task"] == "sequence_classification"
    form = alice.get(new(encoder), {"clone": str(run.id)}).context["form"]
    assert form["task"].value() == "sequence_classification"
    settle(encoder, LLAMA, LABELLED)
    assert alice.post(new(encoder), form_data(encoder)).status_code == 302
    assert Run.objects.latest("created_at").spec["task"] == "causal_lm"


def test_methods_are_greyed_out_by_task_and_refused(alice: Client, bench: Bench) -> None:
    settle(bench, {**LLAMA, "has_biases": True}, LABELLED)
    obstacles = alice.get(new(bench)).context["form"].obstacles[str(bench.base_model.id)]
    assert set(obstacles) == set(LLAMA["tasks"])
    writing = set(obstacles["causal_lm"])
    blocked = set(obstacles["sequence_classification"]) - writing
    assert blocked, "a method that trains for writing alone"
    method = min(blocked)
    answer = alice.post(new(bench), form_data(bench, task="sequence_classification", method=method))
    assert answer.status_code == 422
    assert "it does not train for the task sequence_classification" in answer.text
    assert not Run.objects.exists()


def test_nobody_else_can_launch_and_nothing_of_others_is_told(client: Client, encoder: Bench) -> None:
    """Bob may only look, Charlie is a stranger."""
    from webapp.accounts.models import Membership, Role

    bob, charlie = User.objects.create_user("bob"), make_bench("charlie").user
    Membership.objects.create(team=encoder.team, user=bob, role=Role.VIEWER)
    for person, status in ((bob, 403), (charlie, 404)):
        client.force_login(person)
        assert client.get(new(encoder)).status_code == status
        assert client.post(new(encoder), form_data(encoder)).status_code == status
    assert not Run.objects.exists()


# -- one run and the list ----------------------------------------------------------------------------------------------

FRESH = ["classifier", "pooler"]
MEASURED: dict[str, tuple[dict[str, Any], dict[str, Any], str, list[str]]] = {
    # task: base's and tuned's figures, the headline of the list, what the columns are called
    "classification": (
        {"loss": 1.1, "label_accuracy": 0.3125, "metrics": {"accuracy": 0.3125, "f1_macro": 0.2, "matthews": -0.05}},
        {"loss": 0.2, "label_accuracy": 0.9375, "metrics": {"accuracy": 0.9375, "f1_macro": 0.93, "matthews": 0.88}},
        f"31{THIN}% → 94{THIN}%", ["Accuracy", "F1, mean of the labels", "Matthews correlation", "Loss"],
    ),
    "regression": (
        {"loss": 6.5, "metrics": {"pearson": None, "spearman": None, "mean_squared_error": 6.5}},
        {"loss": 0.5, "metrics": {"pearson": 0.9, "spearman": 0.85, "mean_squared_error": 0.5}},
        f"– → 90{THIN}%", ["Pearson correlation", "Spearman correlation", "Mean squared error"],
    ),
    "answers": (
        {"loss": 4.0, "exact_match": 0.0, "metrics": {"exact_match": 0.0, "f1": 0.05}},
        {"loss": 0.7, "exact_match": 0.5, "metrics": {"exact_match": 0.5, "f1": 0.75}},
        f"5{THIN}% → 75{THIN}%", ["F1", "Exact match", "Loss"],
    ),
}  # fmt: skip


def told(bench: Bench, measured: str, fresh: list[str]) -> Run:
    story = stories.Story(bench.launch(), total_steps=4)
    story.emit("plan", total_steps=4, start_step=0, test_rows=16, fresh_modules=fresh)
    for model, data in zip(("base", "tuned"), MEASURED[measured], strict=False):
        story.emit("eval", step=4, epoch=1.0, split="test", model=model, rows=16, tokens=99, seconds=1.0, **data)  # type: ignore[arg-type]
    return story.tell(State.SUCCEEDED)


@pytest.mark.parametrize("measured", MEASURED)
def test_a_run_shows_its_tasks_own_figures(alice: Client, bench: Bench, measured: str) -> None:
    run = told(bench, measured, FRESH)
    _, tuned, words, names = MEASURED[measured]
    page = alice.get(reverse("runs:detail", args=[run.id]))
    assert [column.name for column in page.context["columns"]] == names
    assert [result.data["model"] for result in page.context["results"]] == ["base", "tuned"]
    first = next(iter(tuned["metrics"].values())) if measured != "answers" else tuned["metrics"]["f1"]
    assert page.context["results"][1].values[0] == f"{100 * first:.1f}{THIN}%"
    row = alice.get(reverse("runs:list", args=[bench.team.slug])).text
    row = row[row.index(f'id="run-{run.id}"') :]
    assert words.split(" → ")[1] in row
    assert names[0] in row


def test_figures_under_a_fresh_head_are_marked_as_chance_and_others_are_not(alice: Client, bench: Bench) -> None:
    fresh, known = told(bench, "classification", FRESH), told(bench, "classification", [])
    for run, marked in ((fresh, True), (known, False)):
        page = alice.get(reverse("runs:detail", args=[run.id])).text
        assert ("by chance" in page, "nobody has trained it" in page) == (marked, marked)
        row = page[page.index("Accuracy, base → tuned") :]
        assert (f"chance 31{THIN}%" in row) == marked


def test_the_figures_of_writing_stay_as_they_were(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(), 20)
    context = alice.get(reverse("runs:detail", args=[run.id])).context
    assert [str(column.name) for column in context["columns"]] == [
        "Loss", "Perplexity", "Token accuracy", "Exact match", "Label accuracy",
    ]  # fmt: skip
    assert (context["figure"].base, context["figure"].tuned) == (f"10{THIN}%", f"95{THIN}%")
    assert not context["chance"]
