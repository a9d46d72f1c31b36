"""The data under a real Trainer: what it sees, what it writes, and what it sees after a restart."""

import json

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_align.data.datamodules import Comparisons, Demonstrations, Prompts, TextDataModule
from lit_align.data.formats import built_in
from lit_align.data.formats.alpaca import Alpaca
from lit_align.data.formats.conversations import Conversations
from lit_align.errors import ConfigError, DataError
from lit_align.rewards.last_number import LastNumber
from lit_align.rewards.weighted import Weighted
from lit_align.types import Step


class Learner(LightningModule):
    """Learns nothing, and remembers what it was shown."""

    block_sparse, mismatched, attributes = False, False, ()

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown, self.validated = [], []

    def formats(self):
        return built_in()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, step, index):
        assert isinstance(step, Step)
        self.shown.append(
            [
                tree.group.source.rpartition(":")[2]
                for batch in step.batches
                for tree in batch.source
            ]
        )
        return self.weight * step.tokens

    def validation_step(self, step, index):
        self.validated.append(
            [
                tree.group.source.rpartition(":")[2]
                for batch in step.batches
                for tree in batch.source
            ]
        )


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "a" * (i % 5 + 1), "chosen": f"b{i}", "rejected": "c"} for i in range(11)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def trainer(folder, epochs=3, **more):
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "logger": False,
    }
    return Trainer(
        max_epochs=epochs, default_root_dir=folder, **quiet | {"enable_checkpointing": False} | more
    )


def data(train, **more):
    small = {"batch_size": 3, "token_budget": 30, "max_length": 20, "as_chat": False}
    return Comparisons(train, **small | more)


@pytest.mark.parametrize("at", [1, 3, 4, 5, 8, 11])
def test_a_checkpoint_between_steps_resumes_exactly(tmp_path, pairs, tokenizer, at):
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = Learner(tokenizer())
    trainer(tmp_path, callbacks=[saver], enable_checkpointing=True).fit(whole, data(pairs))
    resumed = Learner(tokenizer())
    trainer(tmp_path).fit(
        resumed, data(pairs), ckpt_path=tmp_path / f"step={at}.ckpt", weights_only=True
    )
    assert resumed.shown == whole.shown[at:]
    assert len(whole.shown) == 12
    for epoch in (whole.shown[:4], whole.shown[4:8], whole.shown[8:]):
        assert sorted(int(source) for step in epoch for source in step) == list(range(1, 12))


def test_validation_is_whole_each_time_even_after_the_sanity_check(tmp_path, pairs, tokenizer):
    learner = Learner(tokenizer())
    trainer(tmp_path, epochs=2, num_sanity_val_steps=1).fit(learner, data(pairs, validation=pairs))
    once = [
        list(map(str, part)) for part in (range(1, 4), range(4, 7), range(7, 10), range(10, 12))
    ]
    assert [sorted(step, key=int) for step in learner.validated] == [once[0], *once, *once]


def test_the_ledger_is_shown_and_written(tmp_path, pairs, tokenizer, caplog):
    logger = CSVLogger(tmp_path / "elsewhere")
    comparisons = data([pairs], validation=pairs)
    with caplog.at_level("INFO"):
        trainer(tmp_path / "run", epochs=1, logger=logger, log_every_n_steps=1).fit(
            Learner(tokenizer()), comparisons
        )
    assert comparisons.ledgers["train"].table() in caplog.text
    book = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert {split: entry["fates"]["kept"] for split, entry in book.items()} == {
        "train": 11,
        "validation": 11,
    }
    assert book["train"]["notes"] == []
    (note,) = book["validation"]["notes"]
    assert note.startswith("5 of 5 prompts are in train too")
    assert (tmp_path / "run" / "ledger_rows.jsonl").read_text() == ""


def test_columns_are_set_on_the_command_line(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    row = {"topic": "a", "best": "b", "worst": "c", "thinking": "d"}
    path.write_text(json.dumps(row))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Comparisons, "data")
    columns = {"prompt": "topic", "chosen": "best", "rejected": "worst"}
    settings = {"train": str(path), "columns": columns, "ignore_columns": ["thinking"]}
    settings["as_chat"] = False
    config = tmp_path / "data.yaml"
    config.write_text(json.dumps({"data": settings}))
    parser.add_argument("--config", action="config")
    parsed = parser.instantiate(parser.parse_args([f"--config={config}"])).data
    ledgers = []
    (tree,) = parsed.read_trees("train", "pairs", Learner(tokenizer()), ledgers.append)
    assert (tree.group.prompt, tree.group.responses) == ("a", ["b", "c"])
    assert ledgers[0].unread == {"thinking": 1}
    parsed.ignore_columns = []
    with pytest.raises(DataError, match=r"the only row.*the column 'thinking', which changes what"):
        parsed.read_trees("train", "pairs", Learner(tokenizer()), ledgers.append)


def test_columns_that_a_reward_reads_are_not_unread(tmp_path, tokenizer):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "2 + 2?", "context": "Add.", "solution": "4"}))
    ledgers = []
    learner = Learner(tokenizer())
    with pytest.raises(DataError, match="the column 'context'"):
        Prompts(str(path)).read_trees("train", "prompts", learner, ledgers.append)
    learner.reward = Weighted([LastNumber(column="solution"), LastNumber(column="context")], [1, 1])
    Prompts(str(path)).read_trees("train", "prompts", learner, ledgers.append)
    assert not ledgers[-1].unread


def test_setup_prepares_once_and_only_what_is_needed(tmp_path, pairs, tokenizer):
    class Once(Comparisons):
        prepared = ()

        def prepare_split(self, split):
            self.prepared += (split,)
            super().prepare_split(split)

    made = Once(pairs, validation=pairs, token_budget=30, max_length=20, as_chat=False)
    running = trainer(tmp_path, epochs=1)
    running.validate(Learner(tokenizer()), made, verbose=False)
    assert made.prepared == ("validation",)
    running.fit(Learner(tokenizer()), made)
    assert made.prepared == ("validation", "train")


def test_a_layout_may_be_named(tmp_path, pairs, tokenizer):
    with pytest.raises(
        DataError,
        match="format Conversations, whose labels are demonstrations and desirable, but pairs",
    ):
        trainer(tmp_path).fit(Learner(tokenizer()), data(pairs, format=Conversations()))


def test_the_better_side_can_be_imitated(tmp_path, pairs, tokenizer):
    made = Demonstrations(pairs, batch_size=11, token_budget=99, max_length=20, as_chat=False)
    trainer(tmp_path, epochs=1).fit(Learner(tokenizer()), made)
    assert [tree.group.responses for tree in made.trees["train"]] == [[f"b{i}"] for i in range(11)]


def test_settings_come_from_yaml():
    parser = ArgumentParser()
    parser.add_subclass_arguments(TextDataModule, "data")
    layout = {"class_path": "lit_align.data.formats.alpaca.Alpaca"}
    settings = {"train": ["a.jsonl", "b.jsonl"], "format": layout, "overlong": "truncate"}
    parsed = parser.parse_object(
        {"data": {"class_path": "lit_align.data.datamodules.Comparisons", "init_args": settings}}
    )
    made = parser.instantiate(parsed).data
    assert (made.paths["train"], made.format, made.overlong) == (
        ["a.jsonl", "b.jsonl"],
        Alpaca(),
        "truncate",
    )


def test_what_data_carry_is_known_without_reading_them():
    assert (Comparisons.label_kind, Demonstrations.label_kind) == ("pairs", "demonstrations")
    assert not hasattr(TextDataModule, "label_kind")


@pytest.mark.parametrize("setting", ["batch_size", "token_budget", "max_length", "max_malformed"])
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(ConfigError, match=f"{setting} must be .*, got -1"):
        Comparisons("a.jsonl", **{setting: -1})


def test_only_tensors_are_moved(tmp_path, pairs, tokenizer):
    made = data(pairs)
    made.trainer = trainer(tmp_path)
    made.trainer.strategy.connect(Learner(tokenizer()))
    made.setup("fit")
    (step, *_) = made.train_dataloader()
    moved = made.transfer_batch_to_device(step, torch.device("meta"), 0)
    for before, after in zip(step.batches, moved.batches, strict=True):
        assert after.source is before.source
        assert after.trees.responses == before.trees.responses
        moved_tensors = (*after.trees[:7], *after.pairs[:5], *after.pairs.tokens)
        assert {tensor.device.type for tensor in moved_tensors} == {"meta"}
