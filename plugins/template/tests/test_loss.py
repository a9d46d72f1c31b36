from lit_align_template import Hinge

from lit_align.testing import check_objective


def test_it_is_a_valid_loss():
    check_objective(Hinge())
