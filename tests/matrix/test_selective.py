"""All that the catalogue says of the family `selective` holds."""

import pytest

from tests.matrix.conformance import check
from tests.matrix.suite import cells_of


@pytest.mark.parametrize("cell", cells_of("selective"))
def test_what_the_catalogue_says_holds(cell, place, folder):
    report = check(cell, place, folder)
    assert not report.failed, str(report)
