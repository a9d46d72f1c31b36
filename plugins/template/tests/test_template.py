from lit_align_template import Hinge

from lit_align.testing import check_objective


def test_hinge():
    check_objective(Hinge())
