"""On-policy reinforcement learning: experience, policy update, critic, KL control.

The implementation details that matter (after Huang et al., 2024, https://arxiv.org/abs/2403.17031), where each is, and
the test that shows it:

==================================================  =============================  ====================================
dropout is off while learning                       ``models.load``                test_dropout_of_the_base_is_off
prompts are padded on the left, with position ids   ``models.generate``            test_sampled_logps_are_those_of_the
one temperature for sampling and log-probabilities  ``RL.temperature``             test_the_first_iteration_starts_at
no top-k or top-p truncation                        ``generate.sample``            test_tokens_come_as_often_as_they
a response ends at the first EOS, itself a token    ``models.generate``            test_sampled_logps_are_those_of_the
missing-EOS reward and overlong penalty             ``RewardShaping``              test_a_missing_eos_and_a_clipped
reward model scores the last token                  ``rewards.reward_model``       test_the_folder_scores_as_the_run
reward model is normalized                          ``RewardModel.normalise``      test_zero_is_an_ordinary_preferred
critic starts from the reward model, or at zero     ``Critic.initialize``          test_the_critic_starts_from_the
KL penalty on each token, score on the last         ``RewardShaping``              test_token_rewards_and_returns
k1, k2 and k3 are logged, one of them is penalized  ``functional.kl``              test_what_is_logged
KL coefficient fixed or adaptive                    ``KLControl.adapt``            test_the_kl_coefficient_moves
entropy coefficient fixed or adaptive               ``EntropyControl``             test_the_entropy_coefficient_moves
reward whitening keeps the mean                     ``RL.whiten_rewards``          test_token_rewards_and_returns
advantages are whitened over all tokens             ``advantages.masked_whiten``   test_whitening_is_torchtunes
GAE, with no value after the last token             ``advantages.gae``             test_gae_is_its_sum
the value is that before a token                    ``ActorCritic.values``         test_the_critic_starts_from_the
value loss is clipped and halved                    ``Critic.losses``              test_the_value_loss_is_the_larger
ratio clipping, also higher and dual                ``objectives.ppo``             test_a_ratio_is_clipped_on_its_side
shuffled minibatches; the first ratio is 1          ``shuffled_minibatches``       test_minibatches_are_other_ones_in
the policy that sampled is not evaluated again      ``rl.scoring``                 test_passes_of_an_iteration
micro-batches change nothing                        ``LanguageModelStage.update``  test_minibatches_and_budgets_do
early stop at a target KL                           ``RL.target_kl``               test_an_iteration_ends_where_the
epsilon of Adam is configurable                     ``RL.optimizer``               test_rates_fall_with_each_update
learning rate is annealed with each update          ``RL.lr_scheduler``            test_rates_fall_with_each_update
scores are clipped                                  ``RL.reward_clip``             test_a_missing_eos_and_a_clipped
metrics to watch are logged                         ``RolloutBatch.metrics``       test_what_is_logged
the reference is the base model; KL starts at 0     ``models.adapter_set``         test_the_first_iteration_starts_at
gap between sampler and training pass is logged     ``policy/sampler_gap``         test_the_first_iteration_starts_at
what another engine samples is weighted             ``rl.importance``              test_the_mean_weight_is_one_and
prompts with equal scores are dropped or refilled   ``rl.selection``               test_prompts_without_a_difference
responses that are cut off may be masked            ``rl.selection``               test_responses_that_are_cut_off_are
a resumed run is bit for bit the same               ``StepLoader``, ``step_seed``  test_a_killed_run_goes_on_bit_for_bit
==================================================  =============================  ====================================
"""
