"""How urgent a waiting run is. It counts between teams; within one, people put their own runs in order (`runs.order`)."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Priority(models.IntegerChoices):
    """The priority of a run: a higher one starts before all that are lower."""

    LOW = 0, _("Low")
    NORMAL = 1, _("Normal")
    HIGH = 2, _("High")
