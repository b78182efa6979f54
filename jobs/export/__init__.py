"""What a run leaves behind for download: the adapter, the merged model, the model; each as one zip, each proven before it is offered.

`export.export_run(context)` makes the artifacts of a finished training and emits their events; `merge.merge` and `python -m jobs merge`
add an adapter into its base, without torch where they can: nothing is imported here.
"""
