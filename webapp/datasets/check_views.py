"""Pages of the data check that need no model: problems, copies, balance, and what was made of a version."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter
from webapp.core.progress import standing
from webapp.core.spreadsheet import harmless
from webapp.datasets import copies, problems
from webapp.datasets.access import get_dataset, get_version
from webapp.datasets.balance import balance
from webapp.datasets.forms import DescriptionForm
from webapp.datasets.models import DatasetVersion
from webapp.datasets.services.create_dataset import SPLITS
from webapp.datasets.services.examine import announce


@require_GET
def problem_list(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Every problem of a version: kinds with counts, then the list, filtered and paged."""
    version = get_version(request.user, version_id)
    enter(request, version.dataset.team)
    wanted = problems.filter_of(request.GET)
    context = {
        "kinds": problems.kinds(version),
        "filter": wanted,
        "listed": problems.page_of(version, wanted, _page_number(request)),
        "left_out": problems.left_out(version),
        "page_query": _page_query(request),
        "splits": SPLITS,
    }
    return render(request, "datasets/problems.html", _with(version, "problems", context))


@require_GET
def problem_csv(request: HttpRequest, version_id: UUID) -> StreamingHttpResponse:
    """The same list, whole, as CSV."""
    version = get_version(request.user, version_id)
    wanted = problems.filter_of(request.GET)
    names = ("split", "line", "column", "severity", "code", "message", "remedy")
    rows = ([one.get(name) for name in names] for one in problems.problems(version, wanted))
    return _csv(f"{version}-problems.csv", names, rows)


@require_GET
def copy_list(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Copies and near copies within and between the splits."""
    version = get_version(request.user, version_id)
    enter(request, version.dataset.team)
    kind = request.GET.get("kind", "")
    kind = kind if kind in copies.KINDS else ""
    across = request.GET.get("across") == "1"
    context = {
        "kind": kind,
        "across": across,
        "totals": copies.totals(version),
        "listed": copies.page_of(version, kind, _page_number(request), across=across),
        "standing": standing(version.progress),
        "page_query": _page_query(request),
    }
    return render(request, "datasets/copies.html", _with(version, "copies", context))


@require_GET
def copy_csv(request: HttpRequest, version_id: UUID) -> StreamingHttpResponse:
    """Every listed pair as CSV."""
    version = get_version(request.user, version_id)
    names = ("kind", "similarity", "split", "row", "line", "text", "other_split", "other_row", "other_line", "other_text")
    # Rows count from 1 for people.
    pairs = (pair | {"row": pair["row"] + 1, "other_row": pair["other_row"] + 1} for pair in copies.pairs(version))
    return _csv(f"{version}-copies.csv", names, ([pair.get(name) for name in names] for pair in pairs))


@require_GET
def balance_page(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Labels, turns and languages."""
    version = get_version(request.user, version_id)
    enter(request, version.dataset.team)
    return render(
        request, "datasets/balance.html", _with(version, "balance", {"balance": balance(version), "standing": standing(version.progress)})
    )


@require_POST
def examine_again(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """Has the rows looked at as a whole: a version from before there was such a look, or one whose look failed."""
    version = get_version(request.user, version_id, "launch")
    try:
        announce(version)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("datasets:copies", version.pk)


@require_GET
def lineage(request: HttpRequest, version_id: UUID) -> HttpResponse:
    """What was made of a version: its runs, newest first, and what they left."""
    version = get_version(request.user, version_id)
    enter(request, version.dataset.team)
    number = _page_number(request)
    artifacts = Prefetch("artifacts", to_attr="left")
    runs = version.runs.select_related("created_by", "base_model").prefetch_related(artifacts).order_by("-created_at")
    shown = list(runs[(number - 1) * problems.PAGE : number * problems.PAGE + 1])
    context = {"runs": shown[: problems.PAGE], "number": number, "following": len(shown) > problems.PAGE, "run_count": version.runs.count()}
    return render(request, "datasets/lineage.html", _with(version, "lineage", context))


@require_http_methods(["GET", "POST"])
def describe(request: HttpRequest, dataset_id: UUID) -> HttpResponse:
    """Name, description and licence of a dataset."""
    dataset = get_dataset(request.user, dataset_id, "launch")
    enter(request, dataset.team)
    form = DescriptionForm(request.POST or None, instance=dataset)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return redirect("datasets:detail", dataset.pk)
    return render(request, "datasets/describe.html", {"dataset": dataset, "form": form}, status=422 if form.errors else 200)


def _with(version: DatasetVersion, tab: str, context: dict[str, Any]) -> dict[str, Any]:
    """What every page of a version has."""
    return {"version": version, "dataset": version.dataset, "report": version.report, "tab": tab, **context}


def _page_number(request: HttpRequest) -> int:
    text = request.GET.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _page_query(request: HttpRequest) -> str:
    """The query string of this list without its page, to put a page behind it."""
    query = request.GET.copy()
    query.pop("page", None)
    return f"{query.urlencode()}&" if query else ""


class _Echo:
    """A file for the CSV writer that hands back what is written to it."""

    def write(self, text: str) -> str:
        """The text itself."""
        return text


def _csv(name: str, header: tuple[str, ...], rows: Iterator[list[Any]]) -> StreamingHttpResponse:
    writer = csv.writer(_Echo())

    def lines() -> Iterator[str]:
        yield "\ufeff" + writer.writerow(header)
        for row in rows:
            yield writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])

    disposition = content_disposition_header(as_attachment=True, filename=name) or "attachment"
    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8", headers={"Content-Disposition": disposition})
