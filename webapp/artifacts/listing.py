"""A team's artifacts: which match a filter, how often each was downloaded, and what all of them take. A constant number of queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, Sum
from django.http import QueryDict

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import AuditEvent, Team
from webapp.runs.models import Artifact

PAGE_SIZE = 50
TEXT_LENGTH = 100
ORDERS = {"new": ("-created_at", "pk"), "large": ("-bytes", "pk"), "name": ("name", "pk"), "run": ("run__name", "name")}


@dataclass(frozen=True)
class Filter:
    """What is asked for: a part of the name of artifact or run, a kind, an order."""

    text: str = ""
    kind: str = ""
    order: str = "new"

    @classmethod
    def of(cls, asked: QueryDict) -> Filter:
        """The filter of a query string; what is not known there is as if it were not said."""
        kind, order = asked.get("kind", ""), asked.get("order", "")
        return cls(
            text=asked.get("q", "").replace("\0", "").strip()[:TEXT_LENGTH],
            kind=kind if kind in Artifact.Kind.values else "",
            order=order if order in ORDERS else "new",
        )

    def where(self) -> Q:
        """As a condition on artifacts."""
        found = Q(name__icontains=self.text) | Q(run__name__icontains=self.text) if self.text else Q()
        return found & Q(kind=self.kind) if self.kind else found

    @property
    def empty(self) -> bool:
        """Whether everything matches."""
        return not (self.text or self.kind)


@dataclass(frozen=True)
class Listing:
    """A page of artifacts with what all that match, and all of the team, take."""

    page: Page[Artifact]
    downloads: dict[UUID, int]
    matching_bytes: int
    count: int
    total_bytes: int


def listing(team: Team, wanted: Filter, number: Any) -> Listing:
    """Page `number` of the team's artifacts. Five queries."""
    rows = Artifact.objects.filter(run__team=team)
    totals = rows.aggregate(count=Count("pk"), total=Sum("bytes"), matching=Sum("bytes", filter=wanted.where()))
    matching = rows.filter(wanted.where()).select_related("run").defer("files", "run__spec", "run__summary").order_by(*ORDERS[wanted.order])
    page = Paginator(matching, PAGE_SIZE).get_page(number)
    return Listing(page, downloads_of(team, page.object_list), totals["matching"] or 0, totals["count"], totals["total"] or 0)


def downloads_of(team: Team, artifacts: Iterable[Artifact]) -> dict[UUID, int]:
    """How often each was downloaded, by the audit log. One query."""
    ids = [str(artifact.pk) for artifact in artifacts]
    rows = AuditEvent.objects.filter(team=team, action=Action.ARTIFACT_DOWNLOADED, object_id__in=ids)
    return {UUID(key): count for key, count in rows.values_list("object_id").annotate(Count("pk")).order_by()}
