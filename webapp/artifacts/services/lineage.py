"""What comes of what: from base model and data to runs, from runs to artifacts, from artifacts to base models and combined adapters.

One tree for any of them: the way down from the root to the thing that is looked at, and from there all that was made of it. Of what came
together in a run (its data, the adapters that it combined) one leads on, and the others stand beside the run. The number of queries hangs
on the depth of the tree alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from jobs.methods.registry import METHODS, get_method
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.kinds import Kind
from webapp.runs.models import Artifact, Run

Thing = BaseModel | DatasetVersion | Run | Artifact
# Of each thing so many runs are shown, the newest; a tree is so deep, up and down.
MOST_RUNS = 8
MOST_UP, MOST_DOWN = 12, 6
_LOOKED_AT = 400


@dataclass
class Node:
    """A thing in the tree. `row` is None for one that was deleted, of which `name` alone is known. `beside`: what else went into a run;
    `more`: runs that are not shown.
    """

    kind: Literal["model", "version", "run", "artifact"]
    name: str
    row: Thing | None = None
    focus: bool = False
    beside: list[Node] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    more: int = 0


def lineage(team: Team, thing: Thing) -> Node:
    """The tree that `thing` stands in, as far as it belongs to `team` or to the site; its node has `focus`."""
    focus = _node(thing)
    focus.focus = True
    _descend(team, focus)
    root = _climb(team, focus)
    _set_beside(team, root)
    return root


def size(node: Node) -> int:
    """How many nodes a tree has."""
    return 1 + sum(size(child) for child in node.children)


def _node(thing: Thing) -> Node:
    if isinstance(thing, BaseModel):
        return Node("model", thing.name, thing)
    if isinstance(thing, DatasetVersion):
        return Node("version", str(thing), thing)
    return Node("run" if isinstance(thing, Run) else "artifact", thing.name, thing)


def _runs(team: Team) -> QuerySet[Run]:
    wanted = Run.objects.filter(team=team).select_related("dataset_version__dataset", "base_model")
    return wanted.defer("summary", "dataset_version__report", "dataset_version__sniffed", "base_model__description").order_by("-created_at")


# -- up ----------------------------------------------------------------------------------------------------------------


def _climb(team: Team, node: Node) -> Node:
    """The root above `node`, with nothing but the way from there."""
    for _ in range(MOST_UP):
        above = _above(team, node)
        if not above:
            return node
        for parent in above:
            parent.children = [node]
            node = parent
    return node


def _above(team: Team, node: Node) -> list[Node]:
    """What a thing was made of, and where that was deleted, what is above it: the nearest first."""
    match node.row:
        case Artifact() as artifact:
            return [_node(_runs(team).get(pk=artifact.run_id))]
        case Run() as run:
            return [_node(run.base_model)]
        case BaseModel(source=BaseModel.Source.RUN) as model:
            return _origin(team, model.origin)
    return []


def _origin(team: Team, origin: dict[str, Any]) -> list[Node]:
    artifact = Artifact.objects.filter(pk=origin["artifact"], run__team=team).first()
    if artifact is not None:
        return [_node(artifact)]
    gone = Node("artifact", origin["artifact_name"])
    run = _runs(team).filter(pk=origin["run"]).first()
    if run is not None:
        return [gone, _node(run)]
    base = BaseModel.objects.filter(Q(team=team) | Q(team=None), pk=origin["base"]).first()
    return [gone, Node("run", origin["run_name"]), _node(base) if base else Node("model", origin["base_name"])]


# -- down --------------------------------------------------------------------------------------------------------------


def _descend(team: Team, top: Node) -> None:
    """Hangs below `top` what was made of it, level by level."""
    builders = _builders(team)
    level = [top]
    seen = {top.row.pk} if top.row else set()
    for _ in range(MOST_DOWN):
        _add_runs(team, level)
        _add_artifacts(level)
        _add_models(team, level)
        _add_builders(level, builders)
        level = [child for node in level for child in _only_new(node, seen)]
        if not level:
            return


def _only_new(node: Node, seen: set[UUID]) -> list[Node]:
    """The children of a node less those that are in the tree already: two adapters of one combination lead to the same run."""
    node.children = [child for child in node.children if child.row and child.row.pk not in seen]
    seen.update(child.row.pk for child in node.children if child.row)
    return node.children


def _rows(level: Iterable[Node], kind: type[Any]) -> dict[UUID, Node]:
    return {node.row.pk: node for node in level if isinstance(node.row, kind)}


def _add_runs(team: Team, level: Sequence[Node]) -> None:
    """Runs below base models and versions, the newest; how many there are besides."""
    for kind, column in ((BaseModel, "base_model"), (DatasetVersion, "dataset_version")):
        nodes = _rows(level, kind)
        if not nodes:
            continue
        wanted = Q(**{f"{column}__in": nodes})
        totals = dict(Run.objects.filter(wanted, team=team).values_list(column).annotate(Count("pk")))
        for run in _runs(team).filter(wanted)[:_LOOKED_AT]:
            node = nodes[getattr(run, f"{column}_id")]
            if len(node.children) < MOST_RUNS:
                node.children.append(_node(run))
        for key, node in nodes.items():
            node.more = totals.get(key, 0) - len(node.children)


def _add_artifacts(level: Sequence[Node]) -> None:
    nodes = _rows(level, Run)
    for artifact in Artifact.objects.filter(run__in=nodes).defer("files").order_by("kind", "name") if nodes else ():
        nodes[artifact.run_id].children.append(_node(artifact))


def _add_models(team: Team, level: Sequence[Node]) -> None:
    nodes = _rows(level, Artifact)
    wanted = {"team": team, "source": BaseModel.Source.RUN, "origin__artifact__in": [str(key) for key in nodes]}
    for model in BaseModel.objects.filter(**wanted).defer("description").order_by("created_at") if nodes else ():
        nodes[UUID(model.origin["artifact"])].children.append(_node(model))


def _builders(team: Team) -> dict[UUID, list[Run]]:
    """The runs that build on adapters of other runs, by the runs that those are of."""
    methods = [name for name in METHODS if get_method(name).capabilities.adapters]
    found: dict[UUID, list[Run]] = defaultdict(list)
    for run in _runs(team).filter(Q(kind=Kind.COMPOSE) | Q(method__in=methods))[:_LOOKED_AT]:
        for part in dict.fromkeys(parts_of(run)):
            found[part].append(run)
    return found


def parts_of(run: Run) -> list[UUID]:
    """The runs whose adapters a run builds on."""
    if run.kind == Kind.COMPOSE:
        return [UUID(part["path"]) for part in run.spec.get("adapters", ())]
    return [UUID(name) for name in run.spec.get("method", {}).get("adapters", ())]


def _add_builders(level: Sequence[Node], builders: dict[UUID, list[Run]]) -> None:
    """Runs that build on an adapter hang below it."""
    for artifact in (node for node in level if isinstance(node.row, Artifact) and node.row.kind == Artifact.Kind.ADAPTER):
        row = artifact.row
        if isinstance(row, Artifact):
            artifact.children += [_node(run) for run in builders.get(row.run_id, ())]


# -- beside ------------------------------------------------------------------------------------------------------------


def _set_beside(team: Team, root: Node) -> None:
    """For each run what else went into it: its data, its base model where the tree came another way, the other adapters."""
    pairs = [(parent, node) for parent, node in _walk(None, root) if isinstance(node.row, Run)]
    wanted = {part for _, node in pairs if isinstance(node.row, Run) for part in parts_of(node.row)}
    parts = Run.objects.filter(team=team, pk__in=wanted).defer("summary", "spec").in_bulk() if wanted else {}
    for parent, node in pairs:
        run = node.row
        if not isinstance(run, Run):
            continue
        if parent is None or parent.kind != "version":
            node.beside.append(_node(run.dataset_version))
        if parent is not None and parent.kind == "version":
            node.beside.append(_node(run.base_model))
        above = parent.row.run_id if parent and isinstance(parent.row, Artifact) else None
        node.beside += [_node(parts[part]) for part in dict.fromkeys(parts_of(run)) if part in parts and part != above]


def _walk(parent: Node | None, node: Node) -> Iterator[tuple[Node | None, Node]]:
    yield parent, node
    for child in node.children:
        yield from _walk(node, child)
