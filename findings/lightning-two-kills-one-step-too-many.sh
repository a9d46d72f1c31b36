#!/bin/sh
# lightning 2.6.6 with torch 2.13.0 (CPU).
# A run of 3 epochs with 3 steps each saves after every step (ModelCheckpoint, every_n_train_steps=1, save_last=True).
# It is ended at once before step 3, that is after the first epoch's last step was saved, resumed from last.ckpt, ended
# again before step 4, and resumed to its end.
# Expected: 9 steps, as after one such end, and as in the run that nothing ended.
# Seen: 10 steps, exit code 0, no message. The same with ends before steps 6 and 7; with one end it is 9.
# The checkpoint of an epoch's last step is written before the epoch is counted, and the second resume starts from a
# count that never catches up. Anything that adds up steps or anneals over them is then off.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
env/bin/pip install --quiet --disable-pip-version-check lightning==2.6.6 numpy
cat > train.py <<'PY'
import os
import sys
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

warnings.filterwarnings("ignore")


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class End(Callback):
    """Ends the process before a step, as a machine does that is taken away."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            os._exit(9)


step = int(sys.argv[1])
newest = ModelCheckpoint("run", "newest", every_n_train_steps=1, save_last=True, enable_version_counter=False)
trainer = Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[newest, End(step)],
)
loader = torch.utils.data.DataLoader(torch.ones(12, 1), batch_size=4)
last = "run/last.ckpt"
trainer.fit(Model(), loader, ckpt_path=last if os.path.exists(last) else None)
print(trainer.global_step)
PY
steps_after() {
    rm -rf run
    for step in "$@"; do env/bin/python train.py "$step" > out 2> log || true; done
    env/bin/python train.py 99 2> log | tail -n 1
}
undisturbed=$(steps_after)
once=$(steps_after 3)
twice=$(steps_after 3 4)
later=$(steps_after 6 7)
echo "steps: undisturbed $undisturbed, ended before 3: $once, before 3 and 4: $twice, before 6 and 7: $later"
test "$undisturbed $once $twice $later" = "9 9 10 10"
