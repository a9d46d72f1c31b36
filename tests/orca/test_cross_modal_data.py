"""Files of every modality, splits that leak nothing, what is measured on training alone, and what is refused."""

import gzip
import wave
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lit_align.errors import ConfigError, DataError
from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.modalities import Examples, Modality, TargetSpec
from lit_align.orca.modalities.images import Images
from lit_align.orca.modalities.series import Series
from lit_align.orca.modalities.strings import Strings
from lit_align.orca.modalities.tables import Tables
from lit_align.orca.modalities.waveforms import Waveforms
from lit_align.orca.splits import split_examples


class InMemory(Modality):
    """Examples that are there already: ``train`` and ``test``."""

    def __init__(self, train, test=None, kind="series", as_is=False):
        self.train, self.test, self.kind, self.as_is = train, test, kind, as_is

    def __call__(self, path, which):
        return self.train if which == "train" else self.test


def ramps(n, *, classes="ab", length=3):
    """Series 0 0 0, 1 1 1, ...; classes in turn."""
    return Examples(
        [torch.full((1, length), float(i)) for i in range(n)],
        [classes[i % len(classes)] for i in range(n)],
    )


def ready(train, test=None, stage="fit", **settings):
    modality = InMemory(train, test, settings.pop("kind", "series"), settings.pop("as_is", False))
    data = CrossModalData("train", modality, test=None if test is None else "test", **settings)
    data.setup("fit")
    if stage == "test":
        data.setup("test")
    return data


def write(path, text):
    path.write_text(text)
    return str(path)


# ------------------------------------------------------------------------------------------------------- files


def test_ts_ragged_multichannel_and_missing(tmp_path):
    file = write(
        tmp_path / "x.ts",
        "#about\n@problemName x\n@timestamps false\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,?:8,9:b\n",
    )
    found = Series()(file, "train")
    assert found.targets == ["a", "b"]
    assert found.inputs[0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.inputs[1].isnan().tolist() == [[False, True], [False, False]]


def test_ts_with_numbers_to_predict_and_with_timestamps(tmp_path):
    found = Series()(
        write(tmp_path / "r.ts", "@targetlabel true\n@data\n1,2:0.5\n3,4:-1\n"), "train"
    )
    assert found.targets.tolist() == [[0.5], [-1.0]]
    with pytest.raises(DataError, match="has timestamps, which are not supported"):
        Series()(write(tmp_path / "t.ts", "@timestamps true\n@data\n(0,1):a\n"), "train")


def test_tsv_and_npz(tmp_path):
    found = Series()(write(tmp_path / "x.tsv", "1\t0.5\t1.5\n-1\t2.5\tNaN\n"), "train")
    assert found.targets == ["1", "-1"]
    assert found.inputs[0].tolist() == [[0.5, 1.5]]
    x, y = np.arange(12.0).reshape(2, 2, 3), np.array([[True, False], [True, True]])
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    archive = str(tmp_path / "x.npz")
    assert Series()(archive, "train").inputs[1].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert len(Series()(archive, "test")) == 1
    data = CrossModalData(archive, Series(), test=archive)
    with pytest.raises(DataError, match="is too small for training and validation"):
        CrossModalData(write(tmp_path / "one.tsv", "1\t0.5\n"), Series(), test="x").setup("fit")
    data.setup("fit")
    assert data.target.kind == "multilabel"


def test_idx_and_what_is_none(tmp_path):
    pixels = bytes([0, 0, 8, 3, *[0, 0, 0, 2], *[0, 0, 0, 1], *[0, 0, 0, 2], 0, 255, 7, 8])
    (tmp_path / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
    labels = tmp_path / "t-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 9, 4])))
    found = Images()(str(tmp_path / "t-images-idx3-ubyte.gz"), "train")
    assert found.targets == ["9", "4"]
    assert found.inputs[0].tolist() == [[[0, 255]]]
    labels.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 9])))
    with pytest.raises(DataError, match="has 2 images and 1 labels"):
        Images()(str(tmp_path / "t-images-idx3-ubyte.gz"), "train")
    with pytest.raises(DataError, match="is not an idx file of bytes of rank 3"):
        Images()(write(tmp_path / "x-images-idx3", "text"), "train")


def test_a_table(tmp_path):
    file = write(tmp_path / "x.csv", "id,a,b,y\n1,0.5,,u\n2,1,2,v\n")
    found = Tables(target="y", ignore=("id",))(file, "train")
    assert found.targets == ["u", "v"]
    assert found.inputs[1].tolist() == [1.0, 2.0]
    assert found.inputs[0].isnan().tolist() == [False, True]
    with pytest.raises(DataError, match="no column 'z', only id, a, b, y"):
        Tables(target="z")(file, "train")
    with pytest.raises(DataError, match="which is not a number; leave the column out"):
        Tables(target="a", task="regression")(file, "train")


def record(file, samples, rate=8000, width=2):
    with wave.open(str(file), "wb") as made:
        made.setparams((1, width, rate, 0, "NONE", ""))
        made.writeframes(np.array(samples, dtype={1: "uint8", 2: "<i2"}[width]).tobytes())


def test_recordings_in_a_folder_and_in_an_archive(tmp_path):
    record(tmp_path / "7_ann_0.wav", [0, 16384, -32768])
    record(tmp_path / "3_bob_1.wav", [1])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in tmp_path.glob("*.wav"):
            archive.write(file, f"recordings/{file.name}")
    for place in (tmp_path, tmp_path / "all.zip"):
        found = Waveforms()(str(place), "train")
        assert (found.targets, found.groups) == (["3", "7"], ["bob", "ann"])
        assert found.inputs[1].tolist() == [[0.0, 0.5, -1.0]]
    assert Waveforms(name=r"(?P<label>\d).*")(str(tmp_path), "train").groups is None
    record(tmp_path / "3_bob_2.wav", [1], rate=16000)
    with pytest.raises(DataError, match=r"at \[8000, 16000\] samples a second"):
        Waveforms()(str(tmp_path), "train")
    record(tmp_path / "3_bob_2.wav", [1], width=1)
    with pytest.raises(DataError, match="has 8 bits a sample"):
        Waveforms()(str(tmp_path), "train")
    with pytest.raises(DataError, match="does not fit the pattern"):
        Waveforms(name="x")(str(tmp_path), "train")


# ------------------------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize("seed", range(3))
def test_a_split_has_its_share_of_each_class_and_every_row_once(seed):
    examples = ramps(40, classes="aaab")
    kept, held = split_examples(examples, 0.2, seed)
    assert [held.targets.count(name) for name in "ab"] == [6, 2]
    rows = [int(x[0, 0]) for x in kept.inputs], [int(x[0, 0]) for x in held.inputs]
    assert sorted(rows[0] + rows[1]) == list(range(40))
    assert [int(x[0, 0]) for x in split_examples(examples, 0.2, seed)[1].inputs] == rows[1]
    assert [int(x[0, 0]) for x in split_examples(examples, 0.2, seed + 10)[1].inputs] != rows[1]


def test_equal_inputs_and_groups_stay_together():
    twice = Examples([torch.tensor([[float(i // 2)]]) for i in range(20)], ["a"] * 20)
    kept, held = split_examples(twice, 0.3, 0)
    assert not {float(x) for x in kept.inputs} & {float(x) for x in held.inputs}
    assert len(held) == 6
    voices = Examples(twice.inputs, twice.targets, [f"speaker {i % 4}" for i in range(20)])
    kept, held = split_examples(voices, 0.25, 0)
    assert len(set(held.groups)) == 1
    assert not set(kept.groups) & set(held.groups)


def test_numbers_are_split_by_size():
    """Of 50 numbers in five bins of ten, two of each are held out."""
    y = torch.arange(50.0)[:, None]
    _, held = split_examples(Examples([torch.rand(1, 2) for _ in range(50)], y), 0.2, 0)
    assert (
        torch.bucketize(held.targets.flatten(), torch.tensor([9.8, 19.6, 29.4, 39.2]))
        .bincount()
        .tolist()
        == [2] * 5
    )


def test_a_class_of_one_example_is_trained_on():
    examples = Examples(
        [torch.tensor([[float(i)]]) for i in range(11)], ["a"] * 5 + ["b"] * 5 + ["once"]
    )
    data = ready(examples, ramps(4))
    assert "once" in data.splits["train"].targets
    assert "once" not in data.splits["validation"].targets


def test_the_test_file_is_not_opened_before_the_test():
    data = ready(ramps(20), Examples([], []))
    assert data.splits.keys() == {"train", "validation"}
    with pytest.raises(DataError, match="there is no example in test"):
        data.setup("test")


def test_everything_is_measured_on_what_is_trained_on():
    """The held-out rows of one file do not move the mean, whatever they are."""
    data = ready(ramps(50))
    values = torch.cat([x.flatten() for x in data.splits["train"].inputs]).double()
    torch.testing.assert_close(data.mean, values.mean()[None])
    torch.testing.assert_close(data.std, values.std(correction=0)[None])
    x = data.make_batch("train").x
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert {part: len(examples) for part, examples in data.splits.items()} == {
        "train": 32, "validation": 8, "test": 10,
    }  # fmt: skip


def test_about_as_many_as_the_limit():
    data = ready(ramps(100), ramps(7, length=4), limit=50)
    assert [len(data.splits[part]) for part in ("train", "validation")] == [40, 10]


def test_training_on_the_test_set_is_told():
    with pytest.raises(DataError, match="everything in test is in train; test on other data"):
        ready(ramps(20), ramps(2), stage="test")
    with pytest.warns(UserWarning, match="1 inputs of test are in train"):
        ready(ramps(20), Examples([torch.zeros(1, 3), -torch.ones(1, 3)], ["a", "b"]), stage="test")


# ----------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_padded_and_says_where():
    inputs = [torch.tensor([[1.0] * (1 + i % 3)]) + i for i in range(12)]
    inputs[4][0, 0] = torch.nan
    data = ready(Examples(inputs, ["a", "b"] * 6), ramps(2))
    batch = data.make_batch("train")
    for x, mask, raw in zip(batch.x, batch.mask, data.splits["train"].inputs, strict=True):
        assert int(mask.sum()) == int((~raw.isnan()).sum())
        assert (x[~mask] == 0).all()
        torch.testing.assert_close(
            x[mask].double(),
            (raw[~raw.isnan()].double() - data.mean) / data.std,
            rtol=1e-5,
            atol=1e-6,
        )
    assert data.inputs.ragged


def test_constant_channels_and_series_of_length_one_pass():
    constant = [torch.tensor([[3e7], [float(i)]]) for i in range(10)]
    data = ready(Examples(constant, ["a", "b"] * 5), ramps(2))
    x = data.make_batch("train").x
    assert x.isfinite().all()
    assert (x[:, 0] == 0).all()
    assert data.inputs.shape == (1,)


def test_symbols_are_numbered_by_training_and_others_are_unknown(tmp_path):
    rows = "".join(f"{'CNO'[i % 3] * (1 + i % 4)},{i}\n" for i in range(30))
    train, test = (
        write(tmp_path / "a.csv", "s,y\n" + rows),
        write(tmp_path / "b.csv", "s,y\nCXO,1\n"),
    )
    data = CrossModalData(train, Strings("s", "y", "regression"), test=test)
    data.setup("test")
    assert data.inputs.categories == 4
    assert data.make_batch("test").x.tolist() == [[[1, 0, 3]]]


def test_an_epoch_has_every_example_once_in_an_order_of_its_own_and_resumes():
    data = ready(ramps(50), ramps(2), batch_size=7)
    loader = data.train_dataloader()
    epochs = [[x for batch in loader for x in batch.x[:, 0, 0].tolist()] for _ in range(2)]
    assert len(loader) == 6
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    again = data.train_dataloader()
    steps = iter(again)
    [next(steps) for _ in range(2)]
    resumed = data.train_dataloader()
    resumed.start_at(again.epoch, again.next)
    assert [x for batch in resumed for x in batch.x[:, 0, 0].tolist()] == epochs[0][14:]
    assert len(list(data.val_dataloader())) == 2


def test_targets():
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.rand(1, 4, generator=draw) for _ in range(10)]
    numbers = torch.arange(10.0)[:, None] * 2
    data = ready(Examples(inputs, numbers), ramps(2))
    trained = data.splits["train"].targets
    assert (data.target.kind, data.target.outputs) == ("regression", 1)
    assert data.target.mean == pytest.approx((trained.mean().item(),))
    assert data.target.std == pytest.approx((trained.std(correction=0).item(),))
    assert ready(Examples(inputs, numbers > 9), ramps(2)).target == TargetSpec("multilabel", 1)
    dense = ready(Examples(inputs, torch.rand(10, 3, 4, generator=draw)), ramps(2)).target
    assert (dense.kind, dense.outputs, dense.shape, len(dense.std)) == ("dense", 3, (4,), 3)


class Counting(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": 0, "validation": 0, "test": 0}

    def training_step(self, batch):
        self.seen["train"] += len(batch.y)
        return (self.weight * batch.x).sum()

    def validation_step(self, batch):
        self.seen["validation"] += len(batch.y)

    def test_step(self, batch):
        self.seen["test"] += len(batch.y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())


def test_lightning_runs_on_it(tmp_path):
    data, module = CrossModalData("train", InMemory(ramps(50)), batch_size=8), Counting()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, num_sanity_val_steps=0,
        enable_checkpointing=False, **quiet,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert module.seen == {"train": 64, "validation": 16, "test": 10}


def test_a_yaml_can_name_the_modality():
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CrossModalData, "data")
    given = ["--data.train=x.csv", "--data.modality=Tables", "--data.modality.target=y"]
    assert parser.instantiate(parser.parse_args(given)).data.modality == Tables(target="y")


# ----------------------------------------------------------------------------------------------------- refusals

GOOD = [torch.zeros(1, 3) + i for i in range(10)]


@pytest.mark.parametrize(
    ("inputs", "targets", "why"),
    [
        (
            [*GOOD[:9], torch.full((1, 3), torch.nan)],
            ["a", "b"] * 5,
            "input 9 in train holds no value",
        ),
        ([*GOOD[:9], torch.zeros(1, 0)], ["a", "b"] * 5, "input 9 in train holds no value"),
        (
            [*GOOD[:9], torch.full((1, 3), torch.inf)],
            ["a", "b"] * 5,
            "input 9 in train holds an infinite value",
        ),
        (
            [*GOOD[:9], torch.zeros(2, 3)],
            ["a", "b"] * 5,
            r"input 9 in train is \[2, 3\], the first \[1, 3\]",
        ),
        ([*GOOD[:9], torch.zeros(1, 3, 3)], ["a", "b"] * 5, r"input 9 in train is \[1, 3, 3\]"),
        (GOOD, ["a"] * 10, "all training examples in train are of class a"),
        (GOOD, ["a", ""] * 5, "a target in train is missing"),
        (
            GOOD,
            torch.tensor([[1.0]] * 9 + [[torch.nan]]),
            "a target in train is missing or infinite",
        ),
        (GOOD, torch.zeros(10, 1, 4), r"the dense targets in train are \[4\], an input \[3\]"),
        (
            [torch.tensor([[float(i)], [torch.nan]]) for i in range(10)],
            ["a", "b"] * 5,
            "channel 1 of train has no value to train on",
        ),
    ],
)
def test_bad_data_are_refused(inputs, targets, why):
    with pytest.raises(DataError, match=why):
        ready(Examples(inputs, targets), ramps(2))


def test_a_class_that_training_lacks_is_refused_before_the_first_batch():
    data = ready(ramps(20), Examples([-torch.ones(1, 3)], ["c"]), stage="test")
    with pytest.raises(
        DataError,
        match="the test examples are of class c, which is not in the training split, only a, b",
    ):
        data.test_dataloader()


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2, 2, 2)])
def test_an_image_of_the_wrong_rank_is_refused(tmp_path, shape):
    np.savez(tmp_path / "x.npz", x=np.zeros(shape), y=np.arange(4))
    with pytest.raises(DataError, match=f"are of rank {len(shape)}; give"):
        Images()(str(tmp_path / "x.npz"), "train")


def test_archives_that_do_not_fit_are_refused(tmp_path):
    file = str(tmp_path / "x.npz")
    for arrays, why in (
        ({"x": np.zeros((4, 2)), "y": np.zeros(3)}, "has 4 inputs and 3 targets"),
        ({"a": np.zeros(1)}, "has no x_train and no y_train, only a"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 2), dtype=int)}, "the targets in .* are int64"),
        ({"x": np.zeros((4, 2, 2)), "y": np.zeros(4)}, "is of rank 3"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=why):
            Tables()(file, "train")
    with pytest.raises(DataError, match="there is no file"):
        Tables()("nowhere.npz", "train")


@pytest.mark.parametrize(
    "settings", [{"validation_share": 0.0}, {"test_share": 1.0}, {"batch_size": 0}, {"limit": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be "):
        CrossModalData("x", Series(), **settings)


# --------------------------------------------------------------------------------------------------- real files


def aeon(name):
    if (spec := find_spec("aeon")) is None:
        pytest.skip("needs the package aeon; pip install --no-deps aeon==1.6.0")
    return str(
        Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name.split("_")[0] / name
    )


def nearest(data):
    """Accuracy on the test set of the nearest training series, unscaled."""
    x, queries = (
        torch.stack([x.flatten() for x in data.splits[part].inputs]) for part in ("all", "test")
    )
    found = torch.cdist(queries, x).argmin(1)
    hits = [
        data.splits["all"].targets[i] == name
        for i, name in zip(found, data.splits["test"].targets, strict=True)
    ]
    return sum(hits) / len(hits)


def test_ucr_the_nearest_neighbour_scores_what_is_published(shared_data):
    """ECG200: error .12 by Euclidean distance (https://www.cs.ucr.edu/~eamonn/time_series_data_2018)."""
    files = (str(shared_data / "ucr" / f"ECG200_{part}.ts") for part in ("TRAIN", "TEST"))
    data = CrossModalData(next(files), Series(), test=next(files))
    data.setup("test")
    data.splits["all"] = data.modality(data.train_path, "train")
    assert nearest(data) == pytest.approx(0.88)


@pytest.mark.parametrize(("name", "accuracy"), [("ItalyPowerDemand", 0.9553), ("GunPoint", 0.9133)])
def test_aeon_the_nearest_neighbour_scores_what_is_published(name, accuracy):
    """The archive's bake-off, 1-NN by Euclidean distance (https://www.timeseriesclassification.com)."""
    data = CrossModalData(aeon(f"{name}_TRAIN.ts"), Series(), test=aeon(f"{name}_TEST.ts"))
    data.setup("test")
    data.splits["all"] = data.modality(data.train_path, "train")
    assert nearest(data) == pytest.approx(accuracy, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "sizes", "channels", "shortest", "longest", "classes"),
    [("BasicMotions", (40, 40), 6, 100, 100, 4), ("JapaneseVowels", (270, 370), 12, 7, 29, 9)],
)
def test_aeon_multichannel(name, sizes, channels, shortest, longest, classes):
    data = CrossModalData(aeon(f"{name}_TRAIN.ts"), Series(), test=aeon(f"{name}_TEST.ts"))
    data.setup("test")
    parts = [len(data.splits[part]) for part in ("train", "validation", "test")]
    assert (parts[0] + parts[1], parts[2]) == sizes
    lengths = {x.shape[1] for part in data.splits.values() for x in part.inputs}
    assert (data.inputs.channels, min(lengths), max(lengths)) == (channels, shortest, longest)
    assert data.target.outputs == classes


SHARED = {
    "ucr/ECG5000.npz": (Series(), True, (500, 4499), "class", 5),
    "mlbench/Satellite.npz": (Tables(), False, (6435,), "class", 6),
    "darcy/darcy16.npz": (Images(), True, (1000, 50), "dense", 1),
    "molecules/delaney-processed.csv": (
        Strings("smiles", "measured log solubility in mols per litre", "regression"), False, (1128,), "regression", 1,
    ),
    "fsdd/fsdd_george_jackson_lucas.zip": (Waveforms(), False, (1500,), "class", 10),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_real_files(shared_data, name):
    modality, whole, sizes, kind, outputs = SHARED[name]
    path = str(shared_data / name)
    data = CrossModalData(path, modality, test=path if whole else None)
    data.setup("test")
    parts = {part: len(examples) for part, examples in data.splits.items()}
    assert sum(parts.values()) == sum(sizes)
    if whole:
        assert parts["test"] == sizes[1]
    assert (data.target.kind, data.target.outputs) == (kind, outputs)
    batch = next(iter(data.test_dataloader()))
    assert batch.x.isfinite().all()
    assert batch.mask.any()
    if name.startswith("fsdd"):
        voices = [set(data.splits[part].groups) for part in ("train", "validation", "test")]
        assert sum(map(len, voices)) == 3


def test_digits_are_told_apart_by_their_nearest_neighbours():
    """A published example of scikit-learn's reaches .97 with half of them; a sixth is a little worse."""
    pytest.importorskip("sklearn")
    from sklearn.neighbors import KNeighborsClassifier

    data = CrossModalData("digits", Images(), limit=300)
    data.setup("test")
    train, test = data.make_batch("train"), data.make_batch("test")
    model = KNeighborsClassifier(1).fit(train.x.flatten(1), train.y)
    assert model.score(test.x.flatten(1), test.y) > 0.93
