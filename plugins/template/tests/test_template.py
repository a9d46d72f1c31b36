from lit_align.testing import check_objective
from lit_align_template import Hinge


def test_hinge():
    check_objective(Hinge())
