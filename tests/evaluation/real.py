"""Real comparisons in a layout of the core, written where a test asks for them; their text stays out of the project."""

import csv
import json
from collections import Counter
from pathlib import Path


def write(path: Path, rows) -> str:
    """Rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(prompt: str, responses: list[str], better: int, **extra) -> dict:
    """One comparison in the layout Groups."""
    return {"prompt": prompt, "responses": responses, "pairs": [[better, 1 - better]], **extra}


def llmbar(data: Path, folder: Path) -> str:
    """LLMBar's case studies, one subset a file."""
    rows = []
    for file in sorted((data / "llmbar_casestudy").glob("*.json")):
        for row in json.loads(file.read_text()):
            said = [row["output_1"], row["output_2"]]
            rows.append(
                pair(
                    row["input"],
                    said,
                    row["label"] - 1,
                    subset=file.stem.removeprefix("CaseStudy_"),
                )
            )
    return write(folder / "llmbar.jsonl", rows)


def pandalm(data: Path, folder: Path) -> str:
    """What two of three annotators prefer."""
    rows = []
    for row in json.loads((data / "pandalm" / "testset-v1.json").read_text()):
        votes = Counter(row[f"annotator{k}"] for k in (1, 2, 3))
        said = [row["response1"], row["response2"]]
        sound = all(isinstance(one, str) and one.strip() for one in said) and said[0] != said[1]
        if sound and max(votes[1], votes[2]) >= 2:
            rows.append(
                pair(f"{row['instruction']}\n{row['input']}", said, int(votes[2] > votes[1]))
            )
    return write(folder / "pandalm.jsonl", rows)


def llmfao(data: Path, folder: Path) -> str:
    """What most of the crowd prefer, ties of votes left out."""
    votes: dict[str, Counter] = {}
    with (data / "llmfao" / "crowd-comparisons.csv").open() as file:
        for row in csv.DictReader(file):
            votes.setdefault(row["id"], Counter())[row["winner"]] += 1
    rows = []
    for line in (data / "llmfao" / "pairs-crowd.jsonl").read_text().splitlines():
        row = json.loads(line)
        of, said = votes[str(row["id"])], [row["result_x"], row["result_y"]]
        if (
            of["left"] != of["right"]
            and all(one and one.strip() for one in said)
            and said[0] != said[1]
        ):
            rows.append(pair(row["text"], said, int(of["right"] > of["left"])))
    return write(folder / "llmfao.jsonl", rows)


def hh_harmless(data: Path, folder: Path) -> str:
    """As it is: the layout HH."""
    return str(data / "hh_harmless" / "harmless-base-test.jsonl.gz")
