"""What a run leaves behind for download: the adapter, the merged model, the model; each as one zip, each proven before it is offered.

`export_run(context)` makes the artifacts of a finished training and emits their events.
"""

from jobs.export.context import ExportContext
from jobs.export.export import export_run

__all__ = ["ExportContext", "export_run"]
