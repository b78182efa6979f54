"""Regions compiled ahead of time: made for real, loaded, and what becomes of a run that finds some missing."""

from __future__ import annotations

import json

import pytest
import torch

from jobs.commands.warm import copied
from jobs.geometry import default_folder
from jobs.training import libraries as made
from jobs.training import region, regions
from jobs.training.compiling import geometry_from, to_json
from jobs.training.libraries import WORTH_SECONDS, Libraries, has_compiler, least_seconds

SETTINGS = {"epsilon": 1e-5, "offset": 0.0}
LONG = 2 * WORTH_SECONDS


@pytest.fixture(autouse=True)
def _plain_afterwards():
    yield
    region.use_libraries(None)


def _tensors(rows: int, *, strided: bool = False, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, width + 16, generator=torch.Generator().manual_seed(rows))
    return x[:, :width] if strided else x[:, :width].contiguous(), torch.linspace(0.5, 2.0, width)


def _agree(x: torch.Tensor, weight: torch.Tensor) -> bool:
    found, wanted = regions.rms_norm(x, weight, **SETTINGS), regions.rms_norm.function(x, weight, **SETTINGS)
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 1e-6 * wanted.abs().max())


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler (g++, or CXX) on this machine")
def test_a_region_is_made_in_the_background_and_then_used(tmp_path, monkeypatch):
    """Training starts on the plain function and switches; a later run, an exact one, begins with the library."""
    monkeypatch.setattr(made, "NICENESS", 0)  # it would starve beside other tests on its core
    libraries = Libraries(tmp_path, exact=False)
    assert _agree(*_tensors(5))
    assert _agree(*_tensors(5, strided=True))
    assert [geometry.strides[0] for geometry in region.wanted()] == [None, (64, 1)]
    libraries.after_step(LONG)
    process = libraries._process
    assert process is not None
    libraries.after_step(LONG)
    assert libraries._process is process, "one compiler at a time"
    assert process.wait(timeout=240) == 0
    libraries.after_step(LONG)
    assert (region.wanted(), libraries._process) == ([], None)
    assert _agree(*_tensors(5))
    assert _agree(*_tensors(5, strided=True))
    assert len(region.Region.state.loaded) == 2

    later = Libraries(tmp_path, exact=True)
    for rows in (1, 2, 24, 133):  # one row, the example's size and others
        assert _agree(*_tensors(rows))
        assert _agree(*_tensors(rows, strided=True))
    turned = torch.randn(48, 7, generator=torch.Generator().manual_seed(1)).t()
    assert _agree(turned, torch.ones(48)), "what has strides of another order is made contiguous"
    later.after_step(LONG)
    assert later.in_use
    assert (region.wanted(), len(region.Region.state.loaded)) == ([], 2)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pt2", ".pt2"], "nothing else is left behind"


@pytest.fixture
def started(monkeypatch):
    """What the compiler was asked for, in place of its work of ten seconds for each."""
    asked = []

    class Process:
        ended = False

        def poll(self):
            return 0 if self.ended else None

        def kill(self):
            self.ended = True

        def wait(self):
            assert self.ended

    def start(geometries, folder):
        asked.append((list(geometries), folder, Process()))
        return asked[-1][2]

    monkeypatch.setattr(made, "has_compiler", lambda: True)
    monkeypatch.setattr(made, "start_compiler", start)
    return asked


def test_an_exact_run_that_finds_one_missing_goes_on_without_any(tmp_path, started):
    """It has them made for the runs to come, once it is known to be long."""
    libraries = Libraries(tmp_path, exact=True)
    assert libraries.in_use
    regions.rms_norm(*_tensors(5), **SETTINGS)
    libraries.after_step(0)
    assert (libraries.in_use, region.Region.state, started) == (False, None, [])
    libraries.after_step(LONG)
    assert [geometry.region for geometry in started[0][0]] == ["rms_norm"]
    libraries.after_step(LONG)
    assert len(started) == 1
    libraries.close()
    assert started[0][2].ended


def test_a_run_that_is_not_exact_asks_once_and_looks_again(tmp_path, started):
    libraries = Libraries(tmp_path, exact=False)
    regions.rms_norm(*_tensors(5), **SETTINGS)
    libraries.after_step(LONG)
    assert libraries.in_use
    assert len(region.wanted()) == 1
    started[0][2].ended = True
    libraries.after_step(LONG)
    assert region.wanted() == []
    regions.rms_norm(*_tensors(6), **SETTINGS)
    assert len(region.wanted()) == 1, "it could not be compiled: the plain function stays in use"
    libraries.after_step(LONG)
    assert (len(started), libraries.in_use) == (1, True)


@pytest.mark.parametrize("compiler", [True, False])
def test_a_short_run_and_one_without_a_compiler_make_nothing(compiler, tmp_path, started, monkeypatch):
    monkeypatch.setattr(made, "has_compiler", lambda: compiler)
    libraries = Libraries(tmp_path, exact=False)
    regions.rms_norm(*_tensors(5), **SETTINGS)
    libraries.after_step(WORTH_SECONDS - 1 if compiler else LONG)
    assert started == []
    assert _agree(*_tensors(5))


@pytest.mark.parametrize(
    ("recent", "seconds"),
    [([4.0], 0), ([4.0, 0.2], 0), ([4.0, 0.2, 0.5], 20), ([0.2, 0.5, 30.0], 20)],
    ids=["the first", "two", "a slow first", "suspended in the third"],
)
def test_a_slow_step_makes_no_long_run(recent, seconds):
    """A training that was suspended in its first step had libraries made: runs that began later computed otherwise (chaos, seed 15)."""
    assert least_seconds(100, recent) == seconds


@pytest.mark.parametrize(("exact", "compiled", "in_use"), [(True, True, True), (True, False, False), (False, False, True)])
def test_a_resumed_run_goes_on_as_it_was(exact, compiled, in_use, tmp_path):
    libraries = Libraries(tmp_path, exact=exact)
    libraries.go_on(compiled=compiled)
    assert libraries.in_use is in_use
    assert (region.Region.state is not None) is in_use


def test_a_geometry_names_what_its_library_depends_on(tmp_path):
    region.use_libraries(tmp_path)
    calls = [_tensors(5), _tensors(9), _tensors(5, strided=True), _tensors(5, width=32)]
    for tensors in calls:
        regions.rms_norm(*tensors, **SETTINGS)
    regions.rms_norm(*_tensors(5), epsilon=1e-6, offset=0.0)
    regions.rms_norm(_tensors(5)[0].bfloat16(), _tensors(5)[1], **SETTINGS)
    geometries = region.wanted()
    assert len(geometries) == len({geometry.file_name for geometry in geometries}) == 5
    assert geometries[0].sizes == (("*tokens", 48), (48,))
    assert [geometry_from(body) for body in json.loads(to_json(geometries))] == geometries


def test_where_libraries_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAFT_REGIONS", raising=False)
    assert default_folder() == tmp_path / "cache" / "graft" / "regions"
    monkeypatch.setenv("GRAFT_REGIONS", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"


def test_a_library_that_does_not_load_is_passed_over(tmp_path):
    region.use_libraries(tmp_path)
    assert _agree(*_tensors(5))
    (tmp_path / region.wanted()[0].file_name).write_bytes(b"no library")
    region.use_libraries(tmp_path)
    with pytest.warns(UserWarning, match="does not load"):
        assert _agree(*_tensors(5))
    assert len(region.wanted()) == 1
    assert _agree(*_tensors(5))


def test_what_was_made_elsewhere_is_copied_by_its_name(tmp_path):
    """Which tells of the geometry, torch and the processor."""
    region.use_libraries(tmp_path / "own")
    regions.rms_norm(*_tensors(5), **SETTINGS)
    (geometry,) = region.wanted()
    source = tmp_path / "image"
    assert not copied(geometry, source, tmp_path / "own")
    source.mkdir()
    (source / geometry.file_name).write_bytes(b"a library")
    assert copied(geometry, source, tmp_path / "own")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "own").iterdir()] == [(geometry.file_name, b"a library")]
