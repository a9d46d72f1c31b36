"""Where the points come from that an embedder is aligned to."""

import gzip

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_align.errors import DataError
from lit_align.orca.label_quantizer import LabelQuantizer, stratified_sample
from lit_align.orca.source_sets import SourceSet
from tests import tiny as make

TABLE = torch.eye(300)  # row i says which token it was

NER = "Ann\tB-person\nsaw\tO\nBo\tI-person\n\t\nYes\tO\n"
POS = "# text = It's so\n1-2\tIt's\t_\t_\n1\tIt\tit\tPRON\n2\t's\tbe\tAUX\n2.1\tx\tx\tX\n3\tso\tso\tADV\n\n"


@pytest.fixture(scope="module")
def tokenizer():
    return make.tokenizer()


def letters(tokenizer, row):
    """Letters of a mean of one-hot tokens, by how often they were there."""
    return {tokenizer.decode([i]): round(float(row[i]), 4) for i in row.nonzero()[:, 0].tolist()}


def test_a_point_is_the_mean_of_a_word_and_its_neighbours(tmp_path, tokenizer):
    (tmp_path / "a.conll").write_text(NER)
    source = SourceSet.from_words([tmp_path / "a.conll"], TABLE, tokenizer, window=0)
    assert source.names == ("O", "person")
    assert sorted(source.y.tolist()) == [0, 0, 1, 1]
    words = [letters(tokenizer, row) for row in source.x]
    assert {"A": 0.3333, "n": 0.6667} in words
    assert {"B": 0.5, "o": 0.5} in words
    wide = SourceSet.from_words([tmp_path / "a.conll"], TABLE, tokenizer, window=1)
    assert {"A": 0.1429, "n": 0.2857, " ": 0.1429, "s": 0.1429, "a": 0.1429, "w": 0.1429} in [
        letters(tokenizer, row) for row in wide.x
    ]


def test_parts_of_speech_are_read_past_comments_and_joined_words(tmp_path, tokenizer):
    with gzip.open(tmp_path / "b.conllu.gz", "wt") as file:
        file.write(POS)
    source = SourceSet.from_words([tmp_path / "b.conllu.gz"], TABLE, tokenizer, window=0)
    assert source.names == ("ADV", "AUX", "PRON")
    found = {
        source.names[y]: letters(tokenizer, x) for x, y in zip(source.x, source.y, strict=True)
    }
    assert found == {
        "PRON": {"I": 0.5, "t": 0.5},
        "AUX": {"'": 0.5, "s": 0.5},
        "ADV": {"s": 0.5, "o": 0.5},
    }


def test_real_text(shared_data, tokenizer):
    ner = SourceSet.from_words(
        [shared_data / "wnut17" / "wnut17train.conll"], TABLE, tokenizer, count=500
    )
    assert ner.names == (
        "O",
        "corporation",
        "creative-work",
        "group",
        "location",
        "person",
        "product",
    )
    assert ner.y.bincount().min() == 8
    pos = SourceSet.from_words(
        [shared_data / "ud_ewt" / "en_ewt-ud-dev.conllu.gz"], TABLE, tokenizer, count=500
    )
    assert len(pos.names) == 17  # the universal parts of speech
    again = SourceSet.from_words(
        [shared_data / "ud_ewt" / "en_ewt-ud-dev.conllu.gz"], TABLE, tokenizer, count=500
    )
    assert torch.equal(pos.x, again.x)


def test_a_table_alone_makes_classes_of_its_clusters():
    centres = 100 * torch.eye(3)
    of = torch.arange(90) % 3
    table = centres[of] + torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    source = SourceSet.from_table(table, count=60, classes=3)
    assert len(source.names) == 3
    true = source.x.argmax(1)
    assert all(len(source.y[true == c].unique()) == 1 for c in range(3))
    assert SourceSet.from_table(torch.ones(50, 3), classes=4).names == ("cluster 0",)


def test_points_of_a_file(tmp_path):
    np.savez(tmp_path / "points.npz", x=np.arange(12.0).reshape(2, 3, 2), y=np.array([7, 3]))
    source = SourceSet.load(tmp_path / "points.npz")
    assert source.x.tolist() == [[2.0, 3.0], [8.0, 9.0]]
    assert source.y.tolist() == [1, 0]
    assert source.names == ("3", "7")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((2, 2))}, "holds x; a source is x and y"),
        ({"x": np.ones((2, 2)), "y": np.ones(3, dtype=int)}, "for each of its rows"),
        ({"x": np.full((2, 2), np.nan), "y": np.ones(2, dtype=int)}, "finite"),
        ({"x": np.ones((2, 2)), "y": np.ones(2)}, "integer"),
    ],
)
def test_files_that_hold_no_source(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        SourceSet.load(tmp_path / "a.npz")


def test_places_that_hold_no_source(tmp_path, tokenizer):
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(DataError, match=r"there is no source .* give an \.npz"):
            SourceSet.load(path)
    with pytest.raises(DataError, match="there is no file"):
        SourceSet.from_words([tmp_path / "none.conll"], TABLE, tokenizer)
    (tmp_path / "a.conll").write_text("\n\n")
    with pytest.raises(DataError, match="no tagged word in"):
        SourceSet.from_words([tmp_path / "a.conll"], TABLE, tokenizer)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 99))
def test_a_draw_keeps_every_class(classes, count, seed):
    y, before = torch.tensor(classes), torch.get_rng_state()
    index = stratified_sample(y, count, torch.Generator().manual_seed(seed), min_per_class=2)
    assert torch.equal(
        index, stratified_sample(y, count, torch.Generator().manual_seed(seed), min_per_class=2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert len(index.unique()) == len(index)
    for c in set(classes):
        here = classes.count(c)
        assert int((y[index] == c).sum()) == min(here, max(2, round(count * here / len(classes))))


def test_numbers_go_into_bins_of_equal_count_and_ties_together():
    y = torch.tensor([0.0] * 50 + list(range(1, 51)))
    classes = LabelQuantizer.fit(y, k=10)(y)
    assert len(classes[y == 0].unique()) == 1
    assert (classes.diff() >= 0).all()
    assert classes.unique(return_counts=True)[1].tolist() == [50, 10, 10, 10, 10, 10]
    assert LabelQuantizer.fit(torch.ones(5))(torch.ones(5)).unique().numel() == 1


def test_maps_and_sets_of_labels_go_into_clusters():
    maps = (
        torch.cat([torch.zeros(30, 4, 4), torch.full((30, 4, 4), 9.0)])
        + torch.linspace(0, 1, 60)[:, None, None]
    )
    quantizer, before = LabelQuantizer.fit(maps, k=2), torch.get_rng_state()
    classes = quantizer(maps)
    assert len(classes[:30].unique()) == len(classes[30:].unique()) == 1
    assert classes[0] != classes[-1]
    assert torch.equal(before, torch.get_rng_state())
    assert len(LabelQuantizer.fit(maps).centres) == 3  # one for each 20 rows
    with pytest.raises(DataError, match="not finite"):
        LabelQuantizer.fit(torch.tensor([1.0, torch.nan]))
