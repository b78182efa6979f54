"""Every page of the site on a team's real rows: what the accessibility walk visits and `make screenshots` takes pictures of.

A new page needs a line in `PAGES`, and in `make_world` whatever it is to show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from django.urls import reverse

from jobs.models.inspect import inspect_model
from tests.tiny import make_tiny_model
from tests.webapp.runs import stories
from tests.webapp.runs.compare.test_page import story
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, Role, User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.invite import invite
from webapp.accounts.services.tokens import make_token
from webapp.checks.services.survey import ask_survey, survey
from webapp.datasets.mapping import suggested_mapping
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import create_dataset
from webapp.datasets.services.examine import examine
from webapp.datasets.services.start_validation import Choices, settle
from webapp.datasets.services.store_file import store_file
from webapp.datasets.services.validate import validate
from webapp.runs.drafts import plain, sent
from webapp.runs.filling import typed
from webapp.runs.forms import RunForm, initial_of
from webapp.runs.models import Experiment, Run, RunDraft, Worker
from webapp.runs.services.drafts import begin
from webapp.runs.services.experiment import create_experiment
from webapp.settings.env import PROJECT

EXAMPLES = PROJECT / "examples" / "tickets"


@dataclass
class World:
    """A team with people, data, models, workers and runs of every kind, by names."""

    bench: Bench
    administrator: User
    versions: dict[str, DatasetVersion] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    @cached_property
    def experiment(self) -> Experiment:
        """Full fine-tuning and LoRA over two seeds each, finished, and QLoRA, which waits."""
        bench = self.bench
        shared = {"task": "causal_lm", "training": {}, "evaluation": {}, "export": {}, "validation_share": 0.1}
        made = create_experiment(
            team=bench.team, user=bench.user, name="Three methods", note="What does QLoRA lose against LoRA?", token=uuid4(),
            axes={"lines": "full seed=0-1\nlora seed=0-1\nqlora"}, dataset_version=bench.version, base_model=bench.base_model,
            shared=shared,
        )  # fmt: skip
        figures = {"full": (1_900_000_000, 139_399_488, (0.85, 0.9)), "lora": (1_310_000_000, 4_884_480, (0.95, 0.9))}
        for method, (memory, trained, accuracies) in figures.items():
            for run, accuracy in zip(made.runs.filter(method=method).order_by("name"), accuracies, strict=True):
                story(run, steps=60, accuracy=accuracy, memory=memory, trainable_parameters=trained)
        return made

    @cached_property
    def draft(self) -> RunDraft:
        """A run that is being filled in, begun as a copy of the finished one."""
        run = self.runs["finished"]
        values = plain(typed(RunForm(self.bench.team, sent(RunForm(self.bench.team, initial=initial_of(run))))))
        origin = {"run": {"label": run.name, "values": values}}
        changed = {**values, "name": "tickets-lora-2", "training_learning_rate": 0.001}
        return begin(self.bench.team, self.bench.user, changed, step="settings", origin=origin)

    @property
    def slug(self) -> str:
        """The team's."""
        return self.bench.team.slug


@dataclass(frozen=True)
class Visit:
    """A page by the name of its pictures; `path` in a world, `who` looks at it, and what has to be there before it is looked at."""

    name: str
    path: Callable[[World], str]
    who: Callable[[World], User | None] = lambda world: world.bench.user
    ready: str = "main h1"


def of_team(route: str) -> Callable[[World], str]:
    """A page of the team."""
    return lambda world: reverse(route, args=[world.slug])


def of_membership(route: str) -> Callable[[World], str]:
    """A page about a member of the team who is not the one that looks."""
    return lambda world: reverse(
        route, args=[world.slug, world.bench.team.memberships.exclude(user=world.bench.user).earliest("created_at").pk]
    )


def of_run(name: str) -> Callable[[World], str]:
    """The page of a run of the world."""
    return lambda world: reverse("runs:detail", args=[world.runs[name].pk])


def of_draft(step: str) -> Callable[[World], str]:
    """A step of the world's draft of a run."""
    return lambda world: reverse("runs:step", args=[world.slug, world.draft.pk, step])


def of_version(name: str, route: str = "datasets:version", query: str = "") -> Callable[[World], str]:
    """A page of a dataset's version of the world."""
    return lambda world: reverse(route, args=[world.versions[name].pk]) + query


def compared(world: World) -> str:
    """The runs of the world's experiment, side by side."""
    return reverse("runs:compare", args=[world.slug], query={"experiment": world.experiment.pk})


PAGES = (
    Visit("login", lambda world: reverse("account_login"), who=lambda world: None),
    Visit("runs", of_team("runs:list")),
    Visit("new-run", of_team("runs:new")),
    *(Visit(f"new-run-{step}", of_draft(step)) for step in ("check", "model", "method", "settings", "launch")),
    Visit("new-run-whole", of_team("runs:whole")),
    Visit("drafts", of_team("runs:drafts")),
    Visit("run-finished", of_run("finished"), ready="live-chart canvas"),
    Visit("run-failed", of_run("failed"), ready="live-chart canvas"),
    Visit("run-running", of_run("running"), ready="live-chart canvas"),
    Visit("run-extend", lambda world: reverse("runs:extend", args=[world.runs["finished"].pk])),
    Visit("combine", of_team("runs:combine")),
    Visit("compare", compared, ready="#figures table"),
    Visit("experiments", of_team("experiments:list")),
    Visit("experiment-new", of_team("experiments:new")),
    Visit("experiment", lambda world: reverse("experiments:detail", args=[world.experiment.pk]), ready="svg.scatter"),
    Visit("experiment-add", lambda world: reverse("experiments:add", args=[world.experiment.pk])),
    Visit("datasets", of_team("datasets:list")),
    Visit("dataset-new", of_team("datasets:new")),
    Visit("dataset-draft", of_version("draft")),
    Visit("dataset-ready", of_version("ready")),
    Visit("dataset-problems", of_version("problems")),
    Visit("dataset", lambda world: reverse("datasets:detail", args=[world.versions["ready"].dataset_id])),
    Visit("dataset-describe", lambda world: reverse("datasets:describe", args=[world.versions["ready"].dataset_id])),
    Visit("check-problems", of_version("problems", "datasets:problems")),
    Visit("check-rows", of_version("ready", "checks:rows"), ready=".seen .taught"),
    Visit("check-tokens", of_version("ready", "checks:rows", "?view=tokens&maximum=140"), ready=".tokens"),
    Visit("check-lengths", of_version("ready", "checks:lengths", "?maximum=150"), ready=".histogram"),
    Visit("check-copies", of_version("ready", "datasets:copies"), ready=".pairs"),
    Visit("check-balance", of_version("ready", "datasets:balance"), ready=".bars"),
    Visit("check-lineage", of_version("ready", "datasets:lineage")),
    Visit("models", of_team("catalog:list")),
    Visit("model", lambda world: reverse("catalog:detail", args=[world.bench.base_model.pk])),
    Visit("model-add", lambda world: reverse("catalog:add", args=[world.slug, "hub"])),
    Visit("model-upload", lambda world: reverse("catalog:add", args=[world.slug, "upload"])),
    Visit("artifacts", of_team("artifacts:list")),
    Visit("artifact", lambda world: reverse("artifacts:detail", args=[world.runs["finished"].artifacts.get(kind="merged").pk])),
    Visit("members", of_team("accounts:members")),
    Visit("remove-member", of_membership("accounts:remove")),
    Visit("hand-over", of_membership("accounts:hand-over")),
    Visit("workers", of_team("runs:workers")),
    Visit("use", of_team("quotas:usage")),
    Visit("limits", lambda world: reverse("quotas:site"), who=lambda world: world.administrator),
    Visit("notifications", of_team("notices:notifications")),
    Visit("tokens", of_team("accounts:tokens")),
    Visit("api", lambda world: reverse("api")),
    Visit("audit", of_team("accounts:audit")),
    Visit("team-settings", of_team("accounts:settings")),
    Visit("profile", lambda world: reverse("accounts:profile")),
    Visit("password", lambda world: reverse("account_change_password")),
    Visit("two-factor", lambda world: reverse("mfa_index")),
    Visit("confirm-password", lambda world: reverse("mfa_activate_totp")),
    Visit("sessions", lambda world: reverse("usersessions_list")),
    Visit("email-address", lambda world: reverse("account_email")),
    Visit("password-forgotten", lambda world: reverse("account_reset_password"), who=lambda world: None),
    Visit("no-team", lambda world: reverse("home"), who=lambda world: world.administrator),
    Visit("new-team", lambda world: reverse("accounts:new-team"), who=lambda world: world.administrator),
)


def make_world() -> World:
    """Fills the database and the folder of the site."""
    bench = make_bench(rows=[{"prompt": f"Ticket {number}", "completion": "billing"} for number in range(64)])
    make_tiny_model(bench.base_model.folder)
    bench.base_model.facts = inspect_model(bench.base_model.folder).to_json()
    bench.base_model.save()
    administrator = User.objects.create_user(username="ada", password="secret", is_superuser=True, is_staff=True)
    for name, role in (("bo", Role.MAINTAINER), ("vera", Role.VIEWER)):
        person = User.objects.create_user(username=name, password="secret")
        Membership.objects.create(team=bench.team, user=person, role=role)
    Worker.objects.create(name="train0@site", queue="train", device=stories.DEVICE, seen_at=bench.user.date_joined)
    invite(team=bench.team, inviter=bench.user, role=Role.MEMBER, email="nora@example.org")
    make_token(team=bench.team, user=bench.user, name="nightly evaluation", scopes=[Scope.RUNS_READ, Scope.DATA_READ], days=90)
    world = World(bench, administrator)
    world.versions = {name: make_version(bench, name) for name in ("draft", "ready", "problems")}
    examine(world.versions["ready"].pk)
    survey(ask_survey(world.versions["ready"], bench.base_model).pk)
    world.runs = make_runs(bench)
    return world


def make_version(bench: Bench, name: str) -> DatasetVersion:
    """The example tickets: not yet validated (draft), validated (ready), with rows that cannot be read (problems)."""
    lines = (EXAMPLES / "train.jsonl").read_bytes().splitlines(keepends=True)[:200]
    if name == "problems":
        lines[3:3] = [b"{broken\n", b'{"messages": "only"}\n']
    upload = store_bytes(bench, f"{name}.jsonl", b"".join(lines))
    version = create_dataset(team=bench.team, user=bench.user, name=f"Tickets, {name}", uploads={"train": upload.pk})
    if name != "draft":
        settle(version, Choices(mapping=suggested_mapping(version)))
        validate(version.pk)
        version.refresh_from_db()
    return version


def store_bytes(bench: Bench, filename: str, content: bytes) -> Any:
    """A finished upload."""
    from io import BytesIO

    return store_file(team=bench.team, user=bench.user, filename=filename, bytes_total=len(content), source=BytesIO(content))


def make_runs(bench: Bench) -> dict[str, Run]:
    """A run of each state."""
    bench.launch(name="tickets-full", method="full")
    return {
        "finished": stories.finished(bench.launch(name="tickets-lora")),
        "failed": stories.failed(bench.launch(name="tickets-hot", training={"learning_rate": 0.5})),
        "paused": stories.paused(bench.launch(name="tickets-qlora", method="qlora")),
        "running": stories.running(bench.launch(name="tickets-dora", method="dora")),
    }
