"""What a method does not claim is refused by a clear error, before anything is loaded or written."""

import pytest

from jobs.errors import UserError
from jobs.methods.entry import BASE_BITS
from jobs.methods.registry import all_methods
from jobs.spec import TASKS
from tests.matrix.models import material
from tests.matrix.running import make_spec, prepare

METHODS = [pytest.param(method, id=method.id) for method in all_methods()]


@pytest.mark.parametrize("method", METHODS)
def test_tasks_that_it_does_not_claim(method, place, folder):
    given = material(place.root, "llama", "causal_lm")
    for task in TASKS:
        if task not in method.capabilities.tasks:
            _refused("task_cannot", make_spec(method.id, {}, task, given), folder)


@pytest.mark.parametrize("method", METHODS)
def test_bases_that_it_does_not_claim(method, place, folder):
    """The setting is there exactly where there is a choice, and offers what is claimed."""
    given, claimed = material(place.root, "llama", "causal_lm"), method.capabilities.bases
    offered = [setting for setting in method.settings if setting.name == BASE_BITS]
    assert [setting.choices for setting in offered] == ([tuple(str(bits) for bits in claimed)] if len(claimed) > 1 else [])
    for bits in {4, 8, 16} - set(claimed):
        _refused("method_setting", make_spec(method.id, {BASE_BITS: str(bits)}, method.capabilities.tasks[0], given), folder)


@pytest.mark.parametrize("method", METHODS)
def test_another_number_of_finished_adapters(method, place, folder):
    given, least = material(place.root, "llama", "causal_lm"), method.capabilities.adapters
    assert bool(least) == bool(method.capabilities.adapters_of)
    wrong, code = ([folder / "one"] * (least - 1), "adapters_needed") if least else ([folder / "one"], "adapters_unwanted")
    _refused(code, make_spec(method.id, {}, method.capabilities.tasks[0], given, wrong), folder)


# For each need a small model that lacks it, and a word of the refusal.
LACKING = {"biases": ("llama", "bias"), "linear": ("gpt2", "Linear")}
NEEDY = [(method, need) for method in all_methods() for need in method.capabilities.needs if need in LACKING]


@pytest.mark.parametrize(("method", "need"), [pytest.param(method, need, id=f"{method.id}-{need}") for method, need in NEEDY])
def test_a_model_without_what_it_needs(method, need, place, folder):
    architecture, word = LACKING[need]
    given = material(place.root, architecture, "causal_lm")
    with pytest.raises(UserError) as refused:
        prepare(make_spec(method.id, {}, "causal_lm", given), folder / "out")
    assert (refused.value.code, word in str(refused.value)) == ("method_cannot", True)


def _refused(code, spec, folder):
    with pytest.raises(UserError) as refused:
        prepare(spec, folder / "out")
    assert refused.value.code == code
    assert refused.value.remedy
    assert list((folder / "out").iterdir()) == []
