"""The committed run of the demo keeps what the demo promises."""

import itertools
import json
from pathlib import Path

import pytest

PROOF = Path(__file__).parent / "proofs" / "demo.json"


def test_the_demo_teaches_the_behaviour_and_does_not_collapse():
    found = json.loads(PROOF.read_text())
    before, after = found["before"], found["after"]
    assert after["pairs"] >= 20
    assert after["pair_accuracy"] >= 0.8
    assert before["short_answers"] < 0.3
    assert after["short_answers"] >= 0.8
    assert after["distinct_answers"] >= 0.8
    assert after["keyword_hits"] >= before["keyword_hits"]


def test_dpo_runs_away_where_ipo_stops():
    """With one response that always wins: IPO's margin is 1 / (2 beta), DPO's grows on for every beta."""
    found = json.loads((PROOF.parent / "ipo.json").read_text())["margins"]
    for beta in (0.1, 0.5, 1.0):
        assert abs(found[f"IPO {beta}"]["end"] - 1 / (2 * beta)) < 1e-3
        half, end = found[f"DPO {beta}"]["half way"], found[f"DPO {beta}"]["end"]
        assert end > 1.02 * half > 10


def test_the_best_of_more_answers_is_better():
    """A function as the reward: its mean rises with every doubling."""
    curve = json.loads((PROOF.parent / "best_of.json").read_text())["curve"]
    assert [point["n"] for point in curve] == [1, 2, 4, 8, 16]
    rewards = [point["reward"] for point in curve]
    assert rewards == sorted(set(rewards))


def test_gold_turns_and_best_of_n_is_nearer_than_the_formula_says():
    """Against a reward model of 40 noisy pairs: gold falls while the proxy rises, in most seeds; exact KL."""
    found = json.loads((PROOF.parent / "frontier.json").read_text())
    turned = []
    for run in found["runs"]:
        first, *_, last = run["points"]
        assert last["proxy"] > first["proxy"]
        if run["method"] in ("RL", "best-of-n"):
            turned.append(last["gold"] < first["gold"] < run["best"]["gold"] - 0.2)
    assert len(turned) == 6
    assert sum(turned) >= 4
    for seed in found["seeds"]:
        divergence = seed["KL of the best of 64"]
        assert divergence["exact"] < divergence["log n - (n - 1) / n"] - 0.03
        assert abs(divergence["of 256 samples"] - divergence["exact"]) < 0.15


def test_the_studies_say_what_their_page_says():
    """RL is above DPO at every equal KL; flipped choices cost the best of 16; no size is better beyond the seeds."""
    found = json.loads((PROOF.parent / "studies.json").read_text())
    for run in found["methods"]:
        ahead, behind = (run[name]["gold at nats"] for name in ("RL", "DPO"))
        assert all(ahead[nats] > behind[nats] for nats in ahead)
    means = [
        sum(run[share]["best of 16"] for run in found["noise"]) / 3
        for share in ("0.0", "0.2", "0.4")
    ]
    assert means == pytest.approx([1.06, 0.86, 0.23], abs=0.005)
    golds = {size: [run[size]["best of 16"] for run in found["size"]] for size in ("4", "16", "64")}
    assert min(golds["16"]) < max(golds["4"])
    assert min(golds["64"]) < min(golds["4"]) < max(golds["64"])


def test_only_fresh_pairs_reach_the_closed_form():
    """Nats to ρ exp(r / β); SPIN ends near the distribution of its data, and pairs from the start far from both."""
    found = json.loads((PROOF.parent / "rounds.json").read_text())
    assert found["fresh pairs"]["end"] < 0.02 < 0.5 < found["the same, labelled anew"]["end"]
    assert found["the same, labelled anew"]["end"] < found["recorded pairs"]["end"]
    assert found["SPIN"]["end"] < 0.06 < 1 < found["SPIN"]["start"]


def test_joint_otdd_is_fast_at_full_size_and_right():
    """Beside the same maths pair by pair: the gradient is the same, the step a small part of the time."""
    found = json.loads((PROOF.parent / "otdd.json").read_text())
    assert found["shape"] == {"source": 5000, "target": 512, "classes": 10, "d": 768}
    assert found["gradients apart"] < 1e-3
    assert found["seconds"]["literal step"] >= 20 * found["seconds"]["step"]
    assert found["peak gb"]["ours"] <= 1.5


def test_a_small_judge_says_where_a_response_stands_and_swapping_shows_it():
    """Shown in one order SmolLM2 is as good as the file's layout; in both it is near chance, far from a person."""
    found = json.loads((PROOF.parent / "judges.json").read_text())
    assert found["cpu_seconds"] < 300
    for name in ("pandalm", "llmbar"):
        of = found[name]
        assert of["order_dependent"] > 0.9
        assert of["judge, better one shown first"]["accuracy"] > 0.9
        assert of["judge, better one shown last"]["accuracy"] < 0.1
        low, high = of["judge, both orders"]["interval"]
        assert low < 0.5 < high
    assert found["pandalm"]["another person"]["accuracy"] > 0.9


def test_reward_models_learn_from_people():
    """Held-out accuracy, seeds pooled, is above chance for certain; the figures say what length alone would get."""
    found = json.loads((PROOF.parent / "reward_models.json").read_text())
    assert found.keys() == {"hh_harmless", "pandalm", "llmfao, share of votes", "llmfao, majority"}
    for of in found.values():
        assert of["pooled"]["longer_wins"] + of["pooled"]["shorter_wins"] <= 1
        assert of["pooled"]["interval"][0] < of["pooled"]["accuracy"] < of["pooled"]["interval"][1]
        assert 0 < of["pooled"]["calibration_error"] < 1
    assert len(found["hh_harmless"]["runs"]) == 3
    assert found["hh_harmless"]["pooled"]["interval"][0] > 0.5


def test_scoring_costs_less_than_padded_rows():
    found = json.loads((PROOF.parent / "reward_vs_trl.json").read_text())
    for name in ("prompts twice as long as responses", "hh_harmless as it is"):
        assert found[name]["scores differ by"] < 1e-4
        assert found[name]["ratio"] >= found[name]["aim"]


def test_each_way_of_on_line_training_reaches_what_it_aims_at():
    """On prompts that were not trained on, the bootstrap's interval of what was gained is above nothing."""
    found = json.loads((PROOF.parent / "targets.json").read_text())
    assert found.keys() == {"rejection sampling", "on-line DPO", "SPIN"}
    for of in found.values():
        assert of["steps"] == 6
        assert of["interval"][0] > 0


def test_four_ways_to_spend_as_many_gold_labels():
    """Three seeds each within three CPU-minutes; so few labels are better spent on pairs than on a judge."""
    found = json.loads((PROOF.parent / "nouns.json").read_text())
    base = sum(found["base"]) / len(found["base"])
    assert len(found["runs"]) == 4
    for of in found["runs"].values():
        assert len({run["seed"] for run in of}) == 3
        for run in of:
            assert (run["gold labels"], run["steps"]) == (60, 9)
            assert run["before"] == run["curve"][0] == pytest.approx(base)
            assert run["CPU seconds"] <= 180
    assert found["over the base"]["off-line, gold"]["interval"][0] > 0
    for judge in ("fixed", "learning"):
        assert (
            found["over each other"][f"on-line, gold over on-line, {judge} judge"]["interval"][0]
            > 0
        )
        assert (
            found["over each other"][f"on-line, {judge} judge over off-line, gold"]["interval"][1]
            < 0
        )


def test_an_update_on_policy_costs_less_than_in_trl_and_is_the_same():
    found = json.loads((PROOF.parent / "rl_vs_trl.json").read_text())
    assert max(value for name, value in found["gate"].items() if "differ" in name) < 1e-4
    assert found["ratio"] >= 1.8


def test_ppo_takes_less_memory_than_in_trl():
    found = json.loads((PROOF.parent / "ppo_memory.json").read_text())
    assert found["MiB"]["ours"] * 2 < found["MiB"]["TRL"]


@pytest.mark.parametrize("run", ["PPO, seed 11", "PPO, seed 12", "PPO, seed 13", "RLOO", "GRPO"])
def test_learning_on_policy_earns_more_and_stays_near(run):
    """Reward up by 0.2 on a scale from -1 to 1, on held-out prompts too, within 10 nats a response."""
    found = json.loads((PROOF.parent / "on_policy.json").read_text())
    of = found["runs"][run]
    assert of["last"] - of["first"] >= 0.2
    assert of["held out"]["scores"] - found["before"]["scores"] >= 0.2
    assert max(of["last KL"], of["held out"]["kl"]) <= 10
    assert of["CPU seconds"] <= 360
    assert not of["warnings"]


def test_a_run_that_fools_its_reward_is_told_so():
    of = json.loads((PROOF.parent / "on_policy.json").read_text())["runs"]["RLOO, KL free"]
    assert of["last"] - of["first"] >= 0.2
    assert any("nats a response from its reference" in words for words in of["warnings"])


def test_alignment_is_compared_fairly_and_its_gate_does_no_harm():
    """Every arm has a rate of its own among three and three seeds; what the gate refuses leaves no trace."""
    found = json.loads((PROOF.parent / "cross_modal.json").read_text())
    assert {*found["tasks"]} == {
        f"orca_{name}" for name in ("basic_motions", "japanese_vowels", "digits", "landsat")
    }
    for of in found["tasks"].values():
        arms = of["arms"]
        assert [*arms] == ["scratch", "naive", "orca", "otdd", "gated"]
        assert len(of["lrs"]) == 3
        assert all(
            one["lr"] in of["lrs"] and len(one["each"]) == one["seeds"] == 3
            for one in arms.values()
        )
        naive, gated = arms["naive"], arms["gated"]
        assert naive["mean"] > of["baselines"]["mean target"]
        assert gated["mean"] > naive["mean"] - naive["sd"]
        if not gated["kept"]:
            assert (gated["lr"], gated["each"]) == (naive["lr"], naive["each"])
        assert gated["cpu_seconds"] > naive["cpu_seconds"]  # the question has its price
    assert len(found["once each"]) == 5
    assert {*found["published"]} == {*found["tasks"], *found["once each"]}
    assert not found["left out"]
    assert found["all runs"]["cpu_seconds"] < 2400


@pytest.mark.parametrize(
    ("task", "billions", "card"), [("dpo", 8.0, 24), ("ppo", 14.0, 8), ("sft", 4.0, 80)]
)
def test_the_hardware_table_is_what_the_planner_says(task, billions, card):
    from tests.proofs.hardware import chosen

    rows = json.loads((PROOF.parent / "hardware.json").read_text())
    key = {"task": task, "billions": billions, "card": card}
    (row,) = [row for row in rows if row.items() >= key.items()]
    assert row["chosen"] == chosen(task, billions, card)


def test_sampling_and_rl_are_as_quick_as_the_readme_says():
    page = PROOF.parents[2] / "lit_align/docs/pages/proofs.md"
    readme = " ".join(page.read_text().split())
    sampling = json.loads((PROOF.parent / "sampling.json").read_text())
    for name in ("none", "nf4"):
        assert sampling[name]["gate"]["greedy responses that are the same"] == 8
        assert sampling[name]["ratio"] > 1
    whole, packed = (f"{sampling[name]['ratio']:.2f} times" for name in ("none", "nf4"))
    assert f"{whole} the tokens a CPU-second of transformers' `generate` in float32" in readme
    assert f"and {packed} in 4 bits" in readme
    updates = json.loads((PROOF.parent / "rl_vs_trl.json").read_text())["ratio"]
    assert f"scoring and update take {updates:.2f} times less CPU time" in readme


def test_a_server_with_other_numbers_leads_to_the_same_optimum():
    """PPO and RLOO, from the newest policy and from the one before: nats from π*, 0.31 at the start."""
    figures = json.loads((PROOF.parent / "samplers.json").read_text())
    weighted = 0
    for name, run in figures.items():
        if "KL in the reward" in name and "no weights" not in name:
            assert run["to the optimum"] < 0.002 < 0.3 < run["before"]
            weighted += 1
    assert weighted == 12


def test_the_predicted_time_of_a_step_is_that_of_real_runs():
    """On 1, 2 and 4 processes, in CPU seconds of the process that needs most."""
    figures = json.loads((PROOF.parent / "throughput.json").read_text())
    assert [*figures] == ["PPO", "DPO", "DPO, NF4"]
    for run in figures.values():
        for world in ("1", "2", "4"):
            assert 0.8 < run[world]["ratio"] < 1.3  # by how much the machine is used by others


def test_bounded_ratios_differ_only_where_a_batch_moves_the_policy_far():
    """One update: the same. Four: all near the optimum, unless the rate is too high; then three kinds stay nearer."""
    found = json.loads((PROOF.parent / "off_policy.json").read_text())["summary"]
    usual, high = found["0.05"], found["0.2"]
    for summary in usual["1 update, fresh"].values():
        assert summary == pytest.approx(usual["1 update, fresh"]["REINFORCE"], rel=1e-2)
    for regime in ("4 updates, fresh", "4 updates, stale"):
        for summary in usual[regime].values():
            assert summary["end"] < 0.005
        plain = high[regime]["REINFORCE"]
        for name in ("PPO", "VESPO", "GMPO"):
            assert high[regime][name]["end"] < 0.7 * plain["end"]
        for name in ("CISPO", "DPPO", "SAPO"):
            assert high[regime][name]["end"] > 0.8 * plain["end"]


def test_everyones_reward_model_is_at_chance_where_tastes_conflict_and_personal_ones_are_not():
    """Three seeds: with 95 % intervals over people, on pairs that the two tastes alone tell apart."""
    figures = json.loads((PROOF.parent / "personal.json").read_text())
    seeds = [part for name, part in figures.items() if name.startswith("seed")]
    assert len(seeds) == 3
    personal_bounds = []
    for seed in seeds:
        disputed = seed["shrinkage"]["1.0"]["disputed"]["mean"]
        low, high = disputed["pooled"]["interval"]
        assert low < 0.5 < high
        personal_bounds.append(disputed["personal"]["interval"][0])
        for worth in seed["policies"].values():  # of answers, to the person
            assert worth["own"] > worth["of all"]
    assert min(personal_bounds) > 0.5
    assert sorted(personal_bounds)[1] > 0.7  # in one seed of three little was learned


def test_a_model_that_teaches_itself_forgets_less_than_sft():
    """Both answer held-out questions right; the endings, and the answers to other questions, stay nearer the base."""
    found = json.loads((PROOF.parent / "distillation.json").read_text())["itself"]
    itself, sft = found["after"]["itself"], found["after"]["SFT"]
    assert min(itself["right"][0], sft["right"][0]) > 0.9 > 3 * found["before"]["right"]
    assert itself["ending_kl"][0] < 0.01 < 1 < sft["ending_kl"][0]
    ends = {name: [run[-1]["other_kl"] for run in runs] for name, runs in found["curves"].items()}
    assert max(ends["itself"]) < 0.7 * min(ends["SFT"])


def test_a_student_nears_its_teacher_with_fewer_samples_than_by_reward():
    found = json.loads((PROOF.parent / "distillation.json").read_text())["smaller"]
    needed = found["needed"]
    assert sum(needed["whole distributions"]) < sum(needed["sampled tokens"])
    assert max(needed["sampled tokens"]) < min(needed["reward"])
    goal = 0.9 * found["teacher"]
    first = {
        how: [next(k for k, (reward, _) in enumerate(run) if reward >= goal) for run in runs]
        for how, runs in found["curves"].items()
    }
    assert max(first["whole distributions"]) < min(first["reward"])


def test_where_a_policy_abstains_follows_what_abstaining_earns():
    """Right earns 1, wrong -1, abstaining m: RL turns from abstaining to answering near (1 + m) / 2; SFT earns less."""
    figures = json.loads((PROOF.parent / "abstention_law.json").read_text())
    for run in figures["runs"]:
        arms = run["arms"]
        turns = {m: arms[f"RL, m = {m}"]["turns"] for m in ("-0.5", "0", "0.5")}
        assert turns["-0.5"] < 0.25 < turns["0"] < 0.55 < 0.75 < turns["0.5"] < 0.9
        labeller = arms["SFT, labeller's abstentions"]["abstains by how sure"]
        assert max(labeller) - min(labeller) < 0.2  # whatever the model knows
        for m in ("-0.5", "0.0", "0.5"):
            supervised = [values["reward"][m] for arm, values in arms.items() if "SFT" in arm]
            assert arms[f"RL, m = {float(m):g}"]["reward"][m] > max(supervised)
        for middle, share in zip((0.1, 0.3, 0.5, 0.7, 0.9), run["right by how sure"], strict=True):
            assert abs(share - middle) < 0.15  # it is about as often right as it is sure


def test_smollm2_abstains_where_it_was_not_sure_after_rl_alone():
    figures = json.loads((PROOF.parent / "abstention.json").read_text())
    assert [run["seed"] for run in figures["runs"]] == [1, 2, 3]
    for run in figures["runs"]:
        arms = run["arms"]
        unsure_to_sure = {
            arm: values["abstains by how sure"][0] - values["abstains by how sure"][-1]
            for arm, values in arms.items()
        }
        assert unsure_to_sure["RL, m = 0"] > 0.5
        assert max(gap for arm, gap in unsure_to_sure.items() if "SFT" in arm) < 0.35
        rewards = {arm: values["reward"]["0.0"] for arm, values in arms.items()}
        assert max(rewards, key=rewards.get) == "RL, m = 0"


def test_on_smollm2_the_proxy_rises_and_gold_does_not_follow():
    figures = json.loads((PROOF.parent / "frontier_smollm2.json").read_text())
    runs = [run for run in figures["runs"] if run["method"] == "RL"]
    assert len(runs) == 3
    for run in runs:
        first, last = run["points"][0], run["points"][-1]
        assert last["proxy"] - first["proxy"] > 2.5
        assert last["gold"] - first["gold"] < 0.1


def test_scores_of_steps_find_the_first_error_and_save_samples_beside_the_outcome():
    """Three seeds: nearly every first error, and half of the answers right before the outcome alone has them so."""
    runs = json.loads((PROOF.parent / "steps.json").read_text())["runs"]
    assert len(runs) == 3
    for run in runs:
        assert run["first error"]["found"] > 2 * run["first error"]["chance"]
        assert run["best of"]["min"] > 1.5 * run["best of"]["any"]
        until = run["samples until half are right"]
        assert until["steps and outcome"] < until["outcome"]
        ends = run["right at the end"]
        assert ends["steps"] < ends["outcome"] - 0.2  # steps alone are exploited


def test_answers_have_the_length_that_is_asked_for():
    runs = json.loads((PROOF.parent / "attributes.json").read_text())["runs"]
    assert len(runs) == 3
    for run in runs:
        lengths = [row["length"] for row in run["asked"]["verbosity"]]
        assert lengths == sorted(set(lengths))
        assert lengths[4] > 2 * lengths[1] > 4 * lengths[0]
        right = [row["right"] for row in run["asked"]["helpfulness"]]
        assert right[4] > right[3] > max(right[:3])


def test_smollm2_that_teaches_itself_forgets_less_for_what_it_gains():
    """Nats that the demonstrations gain for each nat that other requests move; of their form it learns little."""
    for run in json.loads((PROOF.parent / "self_taught.json").read_text())["runs"]:
        before, *itself = run["arms"]["self-distillation"]
        _, *sft = run["arms"]["SFT"]
        for row in itself:
            assert row["demonstrations"] > before["demonstrations"] + 0.09
            assert row["KL"] < 0.2 * min(other["KL"] for other in sft)
            assert row["others"] > before["others"] - 0.05
            assert row["short"] < before["short"] + 0.1
        worth = [(row["demonstrations"] - before["demonstrations"]) / row["KL"] for row in itself]
        of_sft = [(row["demonstrations"] - before["demonstrations"]) / row["KL"] for row in sft]
        assert min(worth) > 1.5 * max(of_sft)


def test_of_real_people_no_gain_is_shown():
    """Where annotators agree there is nothing to gain; where they do not, four people are too few to tell."""
    figures = json.loads((PROOF.parent / "annotators.json").read_text())
    assert figures["pandalm"]["votes on the same item agree"] > 0.9
    assert figures["llmfao"]["votes on the same item agree"] < 0.6
    for part in figures.values():
        low, high = part["difference"]["personal - pooled"]["interval"]
        assert low < 0 < high
        assert part["mean"]["pooled"]["mean"] > 0.6


def test_gold_of_a_policy_that_learns_on_the_prompts_of_its_reward_model():
    """At one nat it is higher than on other prompts, in five of six languages, also on prompts that are new to both."""
    runs = json.loads((PROOF.parent / "seen_prompts.json").read_text())["runs"]
    for choices, prompts in itertools.product(("few", "many"), ("own", "fresh")):
        differences = []
        for run in runs:
            arms = run[choices]
            seen, unseen = (arms[kind]["gold at 1 nat"][prompts] for kind in ("seen", "unseen"))
            differences.append(seen - unseen)
        assert sum(difference > 0 for difference in differences) >= 5
        assert 0.07 < sum(differences) / len(runs) < 0.11
    for run in runs:
        assert run["many"]["seen"]["agreement"] > run["many"]["unseen"]["agreement"] + 0.03
