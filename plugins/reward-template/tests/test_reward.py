from lit_align_reward_template import Questions

from lit_align.testing import check_reward


def test_it_is_a_valid_reward():
    check_reward(Questions())
