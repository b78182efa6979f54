"""The form of a team's limits."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from webapp.quotas.models import Quota

GIGABYTE = 10**9


class QuotaForm(forms.Form):
    """The limits; an empty field is no limit. Storage is given in GB of 10^9 bytes, as the pages show it."""

    storage = forms.FloatField(
        label=_("Storage, GB"), min_value=0, required=False, help_text=_("Uploads, datasets, models, checkpoints, artifacts.")
    )
    running_runs = forms.IntegerField(label=_("Running runs"), min_value=0, max_value=10_000, required=False)
    queued_runs = forms.IntegerField(label=_("Waiting runs"), min_value=0, max_value=100_000, required=False)
    compute_hours = forms.FloatField(
        label=_("Device hours a month"), min_value=0, required=False, help_text=_("Of GPUs; an hour of a CPU worker counts as one too.")
    )

    @staticmethod
    def initial_of(quota: Quota | None) -> dict[str, Any]:
        """What the form shows of the limits that there are."""
        if quota is None:
            return {}
        storage = None if quota.storage_bytes is None else quota.storage_bytes / GIGABYTE
        return {"storage": storage, **{name: getattr(quota, name) for name in ("running_runs", "queued_runs", "compute_hours")}}

    def limits(self) -> dict[str, Any]:
        """The columns of `Quota` of a valid form."""
        data = self.cleaned_data
        storage = None if data["storage"] is None else round(data["storage"] * GIGABYTE)
        return {"storage_bytes": storage, **{name: data[name] for name in ("running_runs", "queued_runs", "compute_hours")}}
