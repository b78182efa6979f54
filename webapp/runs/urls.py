"""Routes of runs: the list, the form, the page of one run with its parts, and what can be asked of it."""

from __future__ import annotations

from django.urls import path

from webapp.runs import advice_views, compare_views, compose_views, draft_views, file_views, list_views, trained_views, views, workers_views

app_name = "runs"

urlpatterns = [
    path("t/<slug:slug>/runs/", list_views.run_list, name="list"),
    path("t/<slug:slug>/runs/bulk/", list_views.bulk, name="bulk"),
    path("t/<slug:slug>/runs/views/", list_views.save, name="save-view"),
    path("t/<slug:slug>/runs/views/<uuid:view_id>/delete/", list_views.forget, name="delete-view"),
    path("t/<slug:slug>/runs/new/", draft_views.start, name="new"),
    path("t/<slug:slug>/runs/new/whole/", views.new_run, name="whole"),
    path("t/<slug:slug>/runs/new/drafts/", draft_views.drafts, name="drafts"),
    path("t/<slug:slug>/runs/new/<uuid:draft_id>/estimate/", draft_views.estimate, name="estimate"),
    path("t/<slug:slug>/runs/new/<uuid:draft_id>/discard/", draft_views.discard, name="discard-draft"),
    path("t/<slug:slug>/runs/new/<uuid:draft_id>/<slug:name>/", draft_views.step, name="step"),
    path("t/<slug:slug>/runs/new/trained/", trained_views.trained, name="trained"),
    path("t/<slug:slug>/runs/new/advice/", advice_views.advice, name="advice"),
    path("t/<slug:slug>/runs/new/analysis/", advice_views.analyse, name="analyse"),
    path("t/<slug:slug>/runs/combine/", compose_views.combine, name="combine"),
    path("t/<slug:slug>/compare/", compare_views.compare, name="compare"),
    path("t/<slug:slug>/compare/<slug:form>/", compare_views.compare_export, name="compare-export"),
    path("t/<slug:slug>/workers/", workers_views.workers, name="workers"),
    path("t/<slug:slug>/workers/<uuid:worker_id>/drain/", workers_views.drain, name="drain"),
    path("t/<slug:slug>/workers/queue/<uuid:run_id>/priority/", workers_views.priority, name="priority"),
    path("t/<slug:slug>/workers/queue/<uuid:run_id>/move/", workers_views.move, name="move"),
    path("runs/<uuid:run_id>/", views.detail, name="detail"),
    path("runs/<uuid:run_id>/parts/<slug:name>/", views.part, name="part"),
    path("runs/<uuid:run_id>/series/", views.series, name="series"),
    path("runs/<uuid:run_id>/curves.csv", file_views.curves, name="curves"),
    path("runs/<uuid:run_id>/log.txt", file_views.log, name="log"),
    path("runs/<uuid:run_id>/spec.json", file_views.spec, name="spec"),
    path("runs/<uuid:run_id>/blocks/", views.block_scores, name="blocks"),
    path("runs/<uuid:run_id>/blocks/compare/", views.block_overlap, name="overlap"),
    path("runs/<uuid:run_id>/pause/", views.pause, name="pause"),
    path("runs/<uuid:run_id>/resume/", views.resume, name="resume"),
    path("runs/<uuid:run_id>/finish/", views.finish, name="finish"),
    path("runs/<uuid:run_id>/extend/", views.extend, name="extend"),
    path("runs/<uuid:run_id>/cancel/", views.cancel, name="cancel"),
    path("runs/<uuid:run_id>/retry/", views.retry, name="retry"),
    path("runs/<uuid:run_id>/delete/", views.delete, name="delete"),
]
