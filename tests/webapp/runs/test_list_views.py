"""The page of a team's runs: what it shows and in how many queries, what is done to ticked runs, views that are kept, and who may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.timezone import now

from tests.webapp.runs import stories
from tests.webapp.runs.lists.test_filters import add
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.core import formats
from webapp.core.formats import THIN
from webapp.runs.lists.groups import RUNS_OF_A_GROUP
from webapp.runs.models import Experiment, Run, RunTag, SavedView, Worker
from webapp.runs.states import State


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


def member(bench: Bench, role: Role) -> Client:
    """The browser of a new member of Alice's team."""
    person = User.objects.create_user(username=f"{role}-one")
    Membership.objects.create(team=bench.team, user=person, role=role)
    client = Client()
    client.force_login(person)
    return client


def list_url(bench: Bench, **query: Any) -> str:
    return reverse("runs:list", args=[bench.team.slug], query=query)


def names(answer: Any) -> list[str]:
    listing = answer.context["listing"]
    return [row.run.name for row in listing.rows] + [row.run.name for group in listing.groups for row in group.rows]


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_an_empty_team_is_led_to_its_first_run(alice: Client, bench: Bench) -> None:
    page = alice.get(list_url(bench)).text
    assert "The first run takes three steps" in page
    assert reverse("runs:new", args=["alice"]) in page
    # The bench has data and a model, so two of the steps are done.
    assert page.count("done</span>") == 2
    bench.version.dataset.delete()
    page = alice.get(list_url(bench)).text
    assert reverse("datasets:new", args=["alice"]) in page
    assert page.count("done</span>") == 1


def test_the_list_shows_the_figures_of_each_run(alice: Client, bench: Bench) -> None:
    run = stories.finished(bench.launch(name="tickets-lora"))
    page = alice.get(list_url(bench)).text
    row = page[page.index(f'id="run-{run.id}"') :]
    assert "Succeeded" in row
    assert "0.120" in row
    assert f"10{THIN}%" in row
    assert f"95{THIN}%" in row
    assert formats.format_bytes(run.summary["peak_memory_bytes"]) in row
    assert '<svg class="spark"' in row
    assert "every 3s" not in page, "nothing moves, so nothing asks again"


def test_the_list_asks_again_while_a_run_is_queued(alice: Client, bench: Bench) -> None:
    bench.launch()
    assert 'hx-trigger="every 3s"' in alice.get(list_url(bench)).text


def test_htmx_gets_the_list_and_beside_it_the_workers(alice: Client, bench: Bench) -> None:
    bench.launch()
    answer = alice.get(list_url(bench), headers={"HX-Request": "true"}).text
    assert answer.lstrip().startswith('<section id="runs"')
    assert 'hx-swap-oob="outerMorph"' in answer
    assert "<html" not in answer
    assert "hx-swap-oob" not in alice.get(list_url(bench)).text


def test_a_search_says_what_it_left_out_and_where(alice: Client, bench: Bench) -> None:
    add(bench, "good", train_loss=0.5)
    add(bench, "bad", train_loss=2.0)
    answer = alice.get(list_url(bench, q="loss<1 stats:failed"))
    assert names(answer) == ["good"]
    (wrong,) = answer.context["listing"].mistakes
    assert (wrong.before, wrong.part, wrong.after, wrong.place) == ("loss<1 ", "stats", ":failed", 8)
    assert "Did you mean “status”?" in answer.text
    assert "status, method, owner" in answer.text
    assert "<mark>stats</mark>" in answer.text
    assert "No run matches" in alice.get(list_url(bench, q="nonsense")).text


def test_it_is_sorted_by_the_heads(alice: Client, bench: Bench) -> None:
    for name, loss in (("b", 0.5), ("a", 2.0), ("c", None)):
        add(bench, name, eval_loss=loss)
    answer = alice.get(list_url(bench, sort="eval"))
    assert names(answer) == ["b", "a", "c"]
    assert answer.text.count('aria-sort="ascending"') == 1
    assert 'href="?sort=-eval"' in answer.text
    assert names(alice.get(list_url(bench, sort="-eval"))) == ["a", "b", "c"]
    assert names(alice.get(list_url(bench, sort="name"))) == ["a", "b", "c"]


def test_the_columns_are_chosen(alice: Client, bench: Bench) -> None:
    add(bench, "one", last_step=1234, total_steps=2000)
    answer = alice.get(list_url(bench, col=["step", "model"]))
    assert [head.column.key for head in answer.context["listing"].heads] == ["name", "model", "step"]
    assert f"1{THIN}234 / 2{THIN}000" in answer.text
    assert 'form="search" name="col" value="step"' in answer.text, "the next search keeps them"


def test_long_lists_come_in_pages(alice: Client, bench: Bench) -> None:
    for number in range(42):
        add(bench, f"run-{number:02}", created_at=now() - timedelta(hours=number))
    first = alice.get(list_url(bench, q="run"))
    assert names(first) == [f"run-{number:02}" for number in range(40)]
    assert 'rel="next" href="?q=run&amp;page=2"' in first.text
    assert names(alice.get(list_url(bench, q="run", page=2))) == ["run-40", "run-41"]
    assert names(alice.get(list_url(bench, q="run", page=99))) == ["run-40", "run-41"]


# -- groups ------------------------------------------------------------------------------------------------------------


def test_groups_tell_their_best_and_show_their_first(alice: Client, bench: Bench) -> None:
    for number in range(RUNS_OF_A_GROUP + 2):
        add(bench, f"lora-{number}", eval_loss=1.0 + number, accuracy=0.9 - number / 10, created_at=now() - timedelta(hours=number))
    add(bench, "q", method="qlora", created_at=now() + timedelta(hours=1))
    answer = alice.get(list_url(bench, group="method", sort="-eval"))
    qlora, lora = answer.context["listing"].groups
    assert (qlora.name, qlora.count, qlora.best_eval_loss, qlora.more) == ("QLoRA", 1, None, 0)
    assert (lora.name, lora.count, lora.best_eval_loss, lora.best_accuracy, lora.more) == ("LoRA", 8, 1.0, 0.9, 2)
    assert [row.run.name for row in lora.rows] == [f"lora-{number}" for number in (7, 6, 5, 4, 3, 2)]
    assert "All 8 runs of this group" in answer.text
    alone = alice.get(list_url(bench, group="method", only="lora"))
    assert len(names(alone)) == 8
    assert "<strong>LoRA</strong>" in alone.text


def test_a_closed_group_keeps_its_head_alone(alice: Client, bench: Bench) -> None:
    add(bench, "one")
    url = alice.get(list_url(bench, group="dataset")).context["listing"].groups[0].toggle_url
    answer = alice.get(reverse("runs:list", args=["alice"]) + url)
    assert names(answer) == []
    assert 'aria-expanded="false"' in answer.text
    assert answer.context["listing"].groups[0].toggle_url == "?group=dataset"


@pytest.mark.parametrize("group", ["dataset", "model", "experiment"])
def test_every_grouping_has_its_keys_and_one_group_alone(alice: Client, bench: Bench, group: str) -> None:
    add(bench, "in", experiment=Experiment.objects.create(team=bench.team, name="Study", created_by=bench.user))
    add(bench, "out", created_at=now() - timedelta(days=1))
    groups = alice.get(list_url(bench, group=group)).context["listing"].groups
    found = {"dataset": [("tickets", 2)], "model": [("Tiny", 2)], "experiment": [("Study", 1), ("without an experiment", 1)]}
    assert sorted((each.name, each.count) for each in groups) == sorted(found[group])
    for each in groups:
        alone = alice.get(list_url(bench, group=group, only=each.key))
        assert len(names(alone)) == each.count
        assert alone.context["listing"].only_name == each.name
    assert names(alice.get(list_url(bench, group=group, only="nonsense"))) == []


@pytest.mark.parametrize("query", [{}, {"group": "experiment"}, {"q": "-tag:x loss>0 word owner:me data:t"}, {"sort": "model"}])
def test_the_number_of_queries_does_not_grow(alice: Client, bench: Bench, django_assert_num_queries: Any, query: dict[str, str]) -> None:
    def more(count: int) -> None:
        for number in range(count):
            study = Experiment.objects.create(team=bench.team, name=f"study {number}", created_by=bench.user)
            run = add(bench, f"word-{number}", train_loss=1.0, experiment=study)
            RunTag.objects.create(run=run, name=f"tag{number}")
            SavedView.objects.create(team=bench.team, user=bench.user, name=f"{Run.objects.count()}", state="q=a")
            Worker.objects.create(name=f"w{Run.objects.count()}", queue="train", device=stories.DEVICE, run=run, seen_at=now())

    more(1)
    alice.get(list_url(bench, **query))
    with CaptureQueriesContext(connection) as before:
        alice.get(list_url(bench, **query))
    # Those of the list itself: those of the frame around it (session, person, teams, role, counts) are another page's too.
    own = [each["sql"] for each in before if '"runs_' in each["sql"]]
    assert len(own) <= 10, own
    more(8)
    with django_assert_num_queries(len(before)):
        alice.get(list_url(bench, **query))


# -- the workers -------------------------------------------------------------------------------------------------------


def test_the_fleet_names_no_run_of_another_team(alice: Client, bench: Bench) -> None:
    theirs = make_bench("charlie").launch(name="secret-project")
    Worker.objects.create(name="w0", queue="train", device=stories.DEVICE, run=theirs, seen_at=theirs.created_at)
    page = alice.get(list_url(bench)).text
    assert "busy for another team" in page
    assert "secret-project" not in page


def test_the_fleet_counts_what_lives_and_shows_what_our_runs_take(alice: Client, bench: Bench) -> None:
    run = stories.running(bench.launch(name="mine"))
    bench.launch()
    gpu = {**stories.DEVICE, "kind": "cuda", "name": "A100", "memory_bytes": 40_000_000_000}
    Worker.objects.create(name="w0", queue="train", device=gpu, run=run, seen_at=now())
    Worker.objects.create(name="w1", queue="train", device=stories.DEVICE, seen_at=now())
    Worker.objects.create(name="w2", queue="train", device=gpu, run=None, seen_at=now() - timedelta(minutes=5))
    answer = alice.get(list_url(bench))
    fleet = answer.context["listing"].fleet
    assert (len(fleet.alive), fleet.busy, fleet.gpus, fleet.memory_bytes, fleet.waiting) == (2, 1, 1, 56_000_000_000, 1)
    assert [one.worker.name for one in fleet.named] == ["w0", "w2", "w1"]
    assert fleet.named[0].used_bytes == run.summary["latest"]["memory"]["resident_bytes"]
    assert "lost contact" in answer.text
    assert reverse("runs:workers", args=["alice"]) in answer.text


# -- what is done to ticked runs ---------------------------------------------------------------------------------------


def do(client: Client, bench: Bench, what: str, *runs: Run, **more: str) -> Any:
    data = {"do": what, "run": [str(run.pk) for run in runs], **more}
    return client.post(reverse("runs:bulk", args=[bench.team.slug]), data)


def test_ticked_runs_are_compared_and_one_is_cloned(alice: Client, bench: Bench) -> None:
    one, two = add(bench, "one"), add(bench, "two", created_at=now() + timedelta(hours=1))
    compare = reverse("runs:compare", args=["alice"], query={"run": [str(one.pk), str(two.pk)]})
    assert do(alice, bench, "compare", two, one)["Location"] == compare
    assert do(alice, bench, "clone", one)["Location"] == reverse("runs:new", args=["alice"], query={"clone": str(one.pk)})
    composed, analysis = add(bench, "c", kind="compose"), add(bench, "a", kind="analyse")
    assert do(alice, bench, "clone", composed)["Location"] == reverse("runs:combine", args=["alice"], query={"clone": str(composed.pk)})
    for runs, words in (((one, two), "Clone takes one run"), ((analysis,), "An analysis is not cloned")):
        assert do(alice, bench, "clone", *runs)["Location"] == list_url(bench) + "?"
        assert words in alice.get(list_url(bench)).text


def test_tags_are_put_on_and_taken_off_and_both_can_be_undone(alice: Client, bench: Bench) -> None:
    one, two = add(bench, "one"), add(bench, "two")
    RunTag.objects.create(run=one, name="prod")
    answer = do(alice, bench, "tag", one, two, tag="Prod", back="q=one&sort=eval")
    assert answer["Location"] == list_url(bench, q="one", sort="eval")
    assert set(RunTag.objects.values_list("run__name", "name")) == {("one", "prod"), ("two", "prod")}
    page = alice.get(list_url(bench))
    assert "1 run is now tagged prod." in page.text
    assert undone(alice, page) == {("one", "prod")}
    do(alice, bench, "untag", one, two, tag="prod")
    page = alice.get(list_url(bench))
    assert "prod was taken off 1 run." in page.text
    assert not RunTag.objects.exists()
    assert undone(alice, page) == {("one", "prod")}
    do(alice, bench, "tag", two, tag="a, b/c")
    page = alice.get(list_url(bench))
    assert page.context["undo"] is None, "one of them may have been there before"
    assert set(RunTag.objects.filter(run=two).values_list("name", flat=True)) == {"a", "b/c"}


def undone(client: Client, page: Any) -> set[tuple[str, str]]:
    undo = page.context["undo"]
    data: dict[str, list[str]] = {}
    for name, value in undo["fields"]:
        data.setdefault(name, []).append(value)
    assert client.post(undo["url"], data).status_code == 302
    client.get(reverse("runs:list", args=["alice"]))
    return set(RunTag.objects.values_list("run__name", "name"))


@pytest.mark.parametrize("tag", ["", "a:b", "a<b", "x" * 41, "-a"])
def test_what_is_no_tag_is_refused(alice: Client, bench: Bench, tag: str) -> None:
    one = add(bench, "one")
    do(alice, bench, "tag", one, tag=tag)
    assert "A tag is one word of at most 40" in alice.get(list_url(bench)).text
    assert not RunTag.objects.exists()


def test_archived_runs_are_out_of_the_list_until_they_are_asked_for(alice: Client, bench: Bench) -> None:
    ended, running = add(bench, "ended"), add(bench, "busy", state="running")
    do(alice, bench, "archive", ended, running)
    page = alice.get(list_url(bench))
    assert "1 run was archived. What runs or waits" in page.text
    assert names(page) == ["busy"]
    assert names(alice.get(list_url(bench, q="is:archived"))) == ["ended"]
    assert "Archived" in [chip.name for chip in page.context["listing"].chips]
    undone(alice, page)
    assert names(alice.get(list_url(bench, sort="name"))) == ["busy", "ended"]


def test_ticked_runs_are_stopped_and_those_that_have_ended_stay(alice: Client, bench: Bench) -> None:
    queued, ended = bench.launch(name="waits"), add(bench, "ended")
    do(alice, bench, "stop", queued, ended)
    assert "1 run stops." in alice.get(list_url(bench)).text
    assert set(Run.objects.values_list("name", "state")) == {("waits", State.CANCELLED), ("ended", State.SUCCEEDED)}
    do(alice, bench, "stop", ended)
    assert "Nothing was stopped" in alice.get(list_url(bench)).text


def test_nothing_is_done_without_a_run_or_to_another_teams(alice: Client, bench: Bench) -> None:
    theirs = add(make_bench("charlie"), "theirs")
    for runs in ((), (theirs,)):
        do(alice, bench, "archive", *runs)
        assert "tick a run first" in alice.get(list_url(bench)).text
    do(alice, bench, "nonsense", add(bench, "one"))
    alice.post(reverse("runs:bulk", args=["alice"]), {"do": "archive", "run": ["no-uuid"]})
    assert not Run.objects.filter(archived_at__isnull=False).exists()


def test_a_viewer_compares_and_changes_nothing(bench: Bench) -> None:
    viewer, one = member(bench, Role.VIEWER), add(bench, "one")
    assert do(viewer, bench, "compare", one).status_code == 302
    for what in ("clone", "tag", "untag", "archive", "unarchive", "stop"):
        assert do(viewer, bench, what, one, tag="x").status_code == 403
    page = viewer.get(list_url(bench)).text
    assert 'value="compare"' in page
    assert 'value="archive"' not in page
    save(viewer, name="mine", back="q=a", shared="1")
    assert [(view.name, view.shared) for view in SavedView.objects.all()] == [("mine", False)], "a view of one's own changes nothing"
    assert 'id="view-shared"' not in page


# -- views -------------------------------------------------------------------------------------------------------------


def save(client: Client, **data: str) -> Any:
    return client.post(reverse("runs:save-view", args=["alice"]), data)


def test_a_list_is_kept_by_name_and_let_go(alice: Client, bench: Bench) -> None:
    add(bench, "one")
    answer = save(alice, name=" my  prod ", back="q=tag:prod&sort=eval&page=3")
    view = SavedView.objects.get()
    assert (view.name, view.state, view.shared, view.user) == ("my prod", "q=tag%3Aprod&sort=eval", False, bench.user)
    assert answer["Location"] == list_url(bench) + "?q=tag%3Aprod&sort=eval&page=3"
    page = alice.get(answer["Location"])
    chip = next(chip for chip in page.context["listing"].chips if chip.saved)
    assert (chip.name, chip.url, chip.current) == ("my prod", "?q=tag%3Aprod&sort=eval", True)
    save(alice, name="my prod", back="q=other")
    assert SavedView.objects.get().state == "q=other", "the same name is the same view"
    alice.post(reverse("runs:delete-view", args=["alice", view.pk]))
    assert not SavedView.objects.exists()
    page = alice.get(list_url(bench))
    assert "The view “my prod” was deleted." in page.text
    undone(alice, page)
    assert SavedView.objects.get().state == "q=other"


def test_a_shared_view_is_the_teams_and_others_are_not(alice: Client, bench: Bench) -> None:
    save(alice, name="ours", back="q=a", shared="1")
    save(alice, name="mine", back="q=b")
    bob, max_ = member(bench, Role.MEMBER), member(bench, Role.MAINTAINER)
    assert [view.name for view in bob.get(list_url(bench)).context["listing"].views] == ["ours"]
    ours, mine = SavedView.objects.get(name="ours"), SavedView.objects.get(name="mine")
    for client, view in ((bob, ours), (bob, mine), (max_, mine)):
        assert client.post(reverse("runs:delete-view", args=["alice", view.pk])).status_code == 404
    assert max_.post(reverse("runs:delete-view", args=["alice", ours.pk])).status_code == 302
    assert [view.name for view in SavedView.objects.all()] == ["mine"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 61])
def test_a_view_needs_a_name(alice: Client, bench: Bench, name: str) -> None:
    add(bench, "one")
    save(alice, name=name, back="q=a")
    assert "A view needs a name" in alice.get(list_url(bench)).text
    assert not SavedView.objects.exists()


def test_nobody_keeps_more_views_than_fit(alice: Client, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    add(bench, "one")
    monkeypatch.setattr("webapp.runs.services.saved_views.MOST", 1)
    save(alice, name="a", back="q=a")
    save(alice, name="b", back="q=b")
    assert "There are 1 views of yours already" in alice.get(list_url(bench)).text
    save(alice, name="a", back="q=c")
    assert [(view.name, view.state) for view in SavedView.objects.all()] == [("a", "q=c")]
