"""Digits on a tiny random backbone, through the command: three stages, the gate both ways, resuming, refusals."""

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

import lit_align
from lit_align.callbacks.last_checkpoint import LastCheckpoint
from lit_align.cli.main import main
from lit_align.errors import ModelError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.distances import OTDD, DatasetDistance, Distance, Sinkhorn
from lit_align.orca.embedders.patches import Patches
from lit_align.orca.feature_alignment import FeatureAlignment, assign_folds
from lit_align.orca.modalities import Examples, Modality
from lit_align.orca.modalities.images import Images
from lit_align.orca.probe import HeadFeatures, probe_features
from lit_align.orca.stage import CrossModal
from lit_align.orca.transport import DatasetStats
from lit_align.stages.checkpoints import SafeIO
from tests.forked import start_command, wait_for
from tests.stages.runs import ROOT, folder_of, trace

pytest.importorskip("sklearn")
QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
    "accelerator": "cpu",
}


def arguments(tiny, run, *more, command="fit"):
    return [
        command,
        f"--run={run}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=3",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--model=CrossModal",
        f"--model.base.path={tiny}",
        "--model.base.quantization=none",
        "--model.base.dtype=float32",
        "--model.embedder=Patches",
        "--model.embedder.size=4",
        "--model.alignment.distance=OTDD",
        "--model.alignment.rows=40",
        "--model.alignment.folds=2",
        "--model.alignment.steps=2",
        "--model.lora.r=4",
        "--model.lora.dropout=0.1",
        "--model.optimizer=torch.optim.AdamW",
        "--model.optimizer.lr=0.003",
        "--data=CrossModalData",
        "--data.train=digits",
        "--data.modality=Images",
        "--data.limit=60",
        "--data.batch_size=16",
        *more,
    ]


KEPT = (
    "--model.alignment.folds=0",
    "--model.alignment.joint=0.1",
)  # so that the distance is part of every step


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run of 9 steps over 3 epochs that nobody disturbs."""
    run = tmp_path_factory.mktemp("whole")
    main(arguments(tiny, run, *KEPT))
    assert list(trace(run)) == list(range(len(trace(run))))
    return run


def test_it_learns_validates_and_tests(tiny, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    main(arguments(tiny, tmp_path, "--trainer.max_epochs=12", "--data.limit=300"))
    folder = folder_of(tmp_path)
    found = json.loads((folder / "summary.json").read_text())
    assert found["metrics"]["eval_accuracy"] > 0.5  # 0.1 is chance
    assert set(found["alignment"]["probe"]) == {"without", "with", "gain", "error", "kept"}
    assert (folder / "alignment.png").stat().st_size > 10_000
    before, after = found["alignment"]["before"], found["alignment"]["after"]
    assert after["distance"] < before["distance"]
    assert len(before["nearest"]) == 10
    assert re.search(r"alignment is (kept|refused) \(loss of the probe", caplog.text)
    config, last = f"{folder}/config.yaml", f"{folder}/checkpoints/last.ckpt"
    saved = torch.load(last, weights_only=True)
    assert not any("embed_tokens" in name or "base_layer" in name for name in saved["state_dict"])
    for command, prefix in (("validate", "eval"), ("test", "test")):
        main([command, "-c", config, f"--ckpt_path={last}", f"--run={tmp_path}"])
        assert f"{prefix}_accuracy" in capsys.readouterr().out
    again = lit_align.load(folder)
    data = CrossModalData("digits", Images(), limit=300)
    data.setup("fit")
    batch = data.make_batch("validation")
    with torch.no_grad():
        embedded = again.embedder(batch.x, batch.mask)
        right = again.head(again.backbone(embedded), embedded).argmax(1) == batch.y
    assert float(right.float().mean()) == pytest.approx(found["metrics"]["eval_accuracy"], abs=1e-6)


def test_a_killed_run_resumes_bit_for_bit(whole, tiny, tmp_path):
    slow = ("--trainer.callbacks+=tests.stages.callbacks.Slow", "--trainer.callbacks.seconds=0.3")
    process = start_command(arguments(tiny, tmp_path, *KEPT, "--save_every=2", *slow), ROOT)
    last = tmp_path / "0" / "checkpoints" / "last.ckpt"
    wait_for(last.exists, process)
    process.kill()
    process.communicate(timeout=60)
    main(arguments(tiny, tmp_path, *KEPT, f"--ckpt_path={last}"))
    assert folder_of(tmp_path).name == "1"
    assert trace(tmp_path) == trace(whole)


# ------------------------------------------------------------------------------------------------------- the gate


@dataclass(frozen=True)
class ClassSeparation(DatasetDistance):
    """Small where classes are far apart and narrow: what a linear discriminant looks for."""

    def measure(self, source, target):
        stats = DatasetStats.from_labels(target.x.double(), target.y)
        within = (stats.x - stats.means[stats.y]).square().sum()
        return Distance(within / (stats.means - stats.means.mean(0)).square().sum())


@dataclass(frozen=True)
class Collapse(DatasetDistance):
    """Small where all inputs are one point."""

    def measure(self, source, target):
        return Distance((target.x.double() - source.x.double().mean(0)).square().sum())


def bars(n=150):
    """Series that differ by class in the height of one channel, among six that say nothing."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(7, 8, generator=draw) for _ in range(n)]
    for i, x in enumerate(inputs):
        x[0] += 0.4 * (-1) ** i
    return Examples(inputs, ["ab"[i % 2] for i in range(n)])


class InMemory(Modality):
    kind = "series"

    def __init__(self, examples):
        self.examples = examples

    def __call__(self, path, split):
        return self.examples


def fit_one_step(tiny, tmp_path, alignment, groups=None, **settings):
    """A run of one step, on series."""
    given = {
        "tune": "frozen",
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.0),
    } | settings
    module = CrossModal(Base(str(tiny), "none", "float32"), Patches(4), alignment, **given)
    trainer = Trainer(
        max_steps=1,
        default_root_dir=tmp_path,
        plugins=[SafeIO()],
        callbacks=[LastCheckpoint()],
        **QUIET,
    )
    trainer.fit(module, CrossModalData("made up", InMemory(replace(bars(), groups=groups))))
    return module


def test_an_alignment_that_helps_is_kept(tiny, tmp_path):
    report = fit_one_step(
        tiny, tmp_path, FeatureAlignment(steps=30, lr=0.02, distance=ClassSeparation())
    ).alignment_report
    assert report["kept"], report
    assert report["probe"]["with"] < report["probe"]["without"]
    assert report["after"]["fisher"] > report["before"]["fisher"]


def test_an_alignment_that_harms_is_refused_and_undone(tiny, tmp_path):
    how = FeatureAlignment(
        steps=60, lr=0.05, rows=60, distance=Collapse()
    )  # fewer than tokens begin by
    module = fit_one_step(tiny, tmp_path, how)
    assert not module.alignment_report["kept"]
    assert module.alignment_report["probe"]["with"] > module.alignment_report["probe"]["without"]
    plain = fit_one_step(tiny, tmp_path, None)
    for name, weight in module.embedder.state_dict().items():
        assert torch.equal(weight, plain.embedder.state_dict()[name])
    forced = fit_one_step(
        tiny, tmp_path, FeatureAlignment(steps=60, lr=0.05, distance=Collapse(), folds=0)
    )
    assert not torch.equal(forced.embedder.shift, plain.embedder.shift)


def test_the_only_group_left_to_train_on_is_tried_by_its_inputs(tiny, tmp_path):
    """Of three speakers one is tested on, and one validated on."""
    how = FeatureAlignment(steps=1, folds=2, distance=Sinkhorn())
    told = fit_one_step(
        tiny, tmp_path, how, groups=["abc"[k // 50] for k in range(150)]
    ).alignment_report["probe"]
    assert told["without"] > 0
    assert told["error"] > 0


def test_the_probe_is_a_logistic_regression(tiny, tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.preprocessing import StandardScaler

    head = fit_one_step(tiny, tmp_path, None).head
    z = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    y, rest = (z[:, 0] + 0.5 * z[:, 1] > 0).long(), torch.arange(50) < 40
    scale = StandardScaler().fit(z[rest])
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(
        scale.transform(z[rest]), y[rest]
    )
    # two rows of weights that are opposite have half the square of their difference, hence C = 2 for C = 1
    expected = log_loss(y[~rest], theirs.predict_proba(scale.transform(z[~rest])))
    assert probe_features(head, HeadFeatures(z, None), y, rest, 1.0) == pytest.approx(
        expected, rel=1e-2
    )


def test_parts_share_classes_and_never_units():
    units, classes = [k // 2 for k in range(40)], [k // 2 % 2 for k in range(40)]
    part = torch.tensor(assign_folds(units, classes, 5, seed=0))
    assert (part[::2] == part[1::2]).all()
    for k in range(5):
        assert torch.tensor(classes)[part == k].bincount().tolist() == [4, 4]


# ------------------------------------------------------------------------------------------------------- what else


@pytest.mark.parametrize("kind", ["regression", "dense", "multilabel"])
def test_other_targets_are_aligned_by_their_quantiles_or_clusters(kind, tiny, tmp_path):
    draw = torch.Generator().manual_seed(0)
    inputs = list(torch.randn(40, 1, 8, generator=draw))
    y = {
        "regression": torch.stack([x.mean() for x in inputs])[:, None],
        "dense": torch.stack([x.cumsum(1) for x in inputs]),
        "multilabel": torch.stack([torch.stack([x[0, 0] > 0, x[0, 7] > 0]) for x in inputs]),
    }[kind]
    module = CrossModal(
        Base(str(tiny), "none", "float32"),
        Patches(2),
        FeatureAlignment(steps=1, folds=2, joint=0.1, distance=Sinkhorn()),
    )
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(
        module, CrossModalData("made up", InMemory(Examples(inputs, y)), validation_share=0.2)
    )
    assert {"kept", "probe"} <= module.alignment_report.keys()
    assert f"eval_{module.head.metric_name}" in trainer.callback_metrics


def test_a_run_made_in_python_loads(tiny, tmp_path):
    module = fit_one_step(
        tiny,
        tmp_path,
        FeatureAlignment(steps=1, folds=2, distance=Sinkhorn(p=1)),
        tune="lora",
        lora=Lora(r=2),
    )
    again = lit_align.load(tmp_path / "checkpoints" / "last.ckpt")
    assert again.alignment == module.alignment
    assert (again.alignment_report, again.target) == (module.alignment_report, module.target)
    for name, weight in module.trained_parameters().items():
        assert torch.equal(weight, again.trained_parameters()[name])


def test_weights_drawn_anew_leave_the_embedder_as_it_begins(tiny, tmp_path):
    one, other = (fit_one_step(tiny, tmp_path, None, pretrained=value) for value in (True, False))
    for name, weight in one.embedder.state_dict().items():
        assert torch.equal(weight, other.embedder.state_dict()[name])
    inside = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(one.backbone.get_parameter(inside), other.backbone.get_parameter(inside))


def test_what_is_new_learns_faster(tiny, tmp_path):
    module = fit_one_step(
        tiny, tmp_path, None, tune="lora", optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)
    )
    new, tuned = module.make_optimizer().param_groups
    assert (new["lr"], tuned["lr"]) == (0.5, 0.1)
    assert len(new["params"]) == len(list(module.embedder.parameters())) + 2
    frozen = fit_one_step(tiny, tmp_path, None)
    assert len(frozen.make_optimizer().param_groups) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--data=Comparisons", "--data.train=x.jsonl"],
            "CrossModal trains on CrossModalData, not Comparisons",
        ),
        (["--model.embedder=Tabular"], "Tabular reads tabular data, not image; choose another"),
        (["--model.embedder=Pathces"], "nothing is called 'Pathces'; did you mean Patches?"),
        (["--model.alignment.distance=OTTD"], "nothing is called 'OTTD'; did you mean OTDD?"),
        (["--data.modality=Image"], "nothing is called 'Image'; did you mean Images?"),
        (
            ["--model.alignment.steps=0"],
            "steps is 0, rows 40, joint 0.0 and folds 2; steps is at least 1",
        ),
        (["--model.alignment.source=[none.npz]"], "there is no source none.npz"),
        (["--model.layers=9"], "has 2 layers; layers is 9, set it from 1 to 2"),
        (["--model.alignment.distance.epsilon=-1"], "epsilon is -1.0"),
    ],
)
def test_refusals(more, sentence, tiny, tmp_path, capsys):
    given = arguments(tiny, tmp_path)
    if more[0].startswith("--data="):
        given = [one for one in given if not one.startswith("--data")]
    with pytest.raises(SystemExit):
        main([*given, *more])
    assert sentence in capsys.readouterr().err


def test_text_stages_refuse_its_data_and_commands_about_text_refuse_it(
    tiny, tmp_path, capsys, whole
):
    with pytest.raises(SystemExit):
        main(
            [
                *(
                    "fit",
                    "--model=SFT",
                    "--model.objective=CrossEntropy",
                    f"--model.base.path={tiny}",
                ),
                *(
                    "--model.base.quantization=none",
                    f"--run={tmp_path}",
                    "--trainer.accelerator=cpu",
                ),
                *(
                    "--model.lora.r=2",
                    "--data=CrossModalData",
                    "--data.train=digits",
                    "--data.modality=Images",
                ),
            ]
        )
    assert (
        "learns from demonstrations, and the data module CrossModalData has examples"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(arguments(tiny, tmp_path, command="predict"))
    assert "answers no prompts" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(arguments(tiny, tmp_path, command="inspect"))
    assert "inspect looks at text" in capsys.readouterr().err


def test_a_checkpoint_of_other_data_is_refused(whole, tiny, tmp_path, capsys):
    last = folder_of(whole) / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit):
        main(arguments(tiny, tmp_path, *KEPT, f"--ckpt_path={last}", "--model.embedder.size=2"))
    assert "embedder was" in capsys.readouterr().err


def test_points_of_a_file(tiny, tmp_path):
    np.savez(
        tmp_path / "points.npz",
        x=np.random.default_rng(0).normal(size=(40, 32)),
        y=np.arange(40) % 2,
    )
    how = FeatureAlignment([str(tmp_path / "points.npz")], OTDD(), steps=1, folds=0)
    assert fit_one_step(tiny, tmp_path, how).alignment_report["source"].endswith("points.npz")


def test_what_asks_a_run_for_text_or_roles_is_told(whole, tmp_path):
    with pytest.raises(ModelError, match="neither reads nor generates text"):
        lit_align.load(folder_of(whole)).tokenizer.encode("")
    with pytest.raises(ModelError, match="neither reads nor generates text"):
        save_adapter(lit_align.load(folder_of(whole)).adapters, tmp_path)
