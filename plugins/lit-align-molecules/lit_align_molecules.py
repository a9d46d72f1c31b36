"""Molecules as graphs: SMILES in (Weininger, 1988, https://doi.org/10.1021/ci00057a005), a token for each atom out."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.errors import DataError
from lit_align.orca.embedders import Embedded, Embedder, InputSpec
from lit_align.orca.modalities import Examples, Modality
from lit_align.orca.modalities.base import column, rows_of

ELEMENTS = ("?", "C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "B", "Si", "Se", "H")
BONDS = {"-": 1, "/": 1, "\\": 1, "=": 2, "#": 3, ":": 4}
SLOTS = 6  # neighbours of an atom; further ones are left out
ATOM = 4  # rows that say what an atom is: element, aromatic, charge from 1 to 5, hydrogens written with it
PIECE = re.compile(r"(\[[^\]]*\]|Br|Cl|[BCNOPSFI]|[bcnops])|([-=#:/\\])|%(\d\d)|(\d)|([().])")
BRACKET = re.compile(r"\[\d*([A-Z][a-z]?|[a-z]{1,2})@*(?:H(\d*))?([+-]\d|[+-]*)(?::\d+)?\]")


def graph(smiles: str) -> Tensor:
    """Atoms in the order they are written, ``[4 + 12, atoms]``: what each is, its neighbours from 1 on, their bonds.

    Example:
        Ethanol: two carbons and an oxygen; the second carbon is bound to both others.

        >>> graph("CCO")[[0, 4, 5]].tolist()
        [[1, 1, 3], [2, 1, 2], [0, 3, 0]]
    """
    atoms: list[list[int]] = []
    bonds: list[list[tuple[int, int]]] = []
    branches: list[int] = []
    rings: dict[str, tuple[int, int]] = {}
    last, bond, at = -1, 0, 0

    def bind(one: int, other: int, kind: int) -> None:
        kind = kind or (4 if atoms[one][1] and atoms[other][1] else 1)
        bonds[one].append((other, kind))
        bonds[other].append((one, kind))

    while at < len(smiles):
        found = PIECE.match(smiles, at)
        if found is None:
            raise DataError(
                f"{smiles!r} is no SMILES from character {at + 1} on; correct it, or leave it out"
            )
        at = found.end()
        atom, between, *ring, mark = found.groups()
        if atom:
            atoms.append(_atom(atom, smiles))
            bonds.append([])
            if last >= 0:
                bind(last, len(atoms) - 1, bond)
            last, bond = len(atoms) - 1, 0
        elif between:
            bond = BONDS[between]
        elif mark == "(":
            branches.append(last)
        elif mark == ")" and branches:
            last = branches.pop()
        elif mark == ".":
            last = -1
        elif (number := "".join(filter(None, ring))) in rings:
            other, kind = rings.pop(number)
            bind(last, other, bond or kind)
            bond = 0
        elif number:
            rings[number], bond = (last, bond), 0
    if rings or branches or not atoms:
        raise DataError(
            f"{smiles!r} is no SMILES: a ring or a branch is left open; correct it, or leave it out"
        )
    rows = torch.zeros(ATOM + 2 * SLOTS, len(atoms), dtype=torch.long)
    rows[:ATOM] = torch.tensor(atoms).T
    for number, neighbours in enumerate(bonds):
        for slot, (other, kind) in enumerate(neighbours[:SLOTS]):
            rows[ATOM + slot, number], rows[ATOM + SLOTS + slot, number] = other + 1, kind
    return rows


def _atom(written: str, smiles: str) -> list[int]:
    symbol, hydrogens, charge = written, None, ""
    if written[0] == "[":
        found = BRACKET.fullmatch(written)
        if found is None:
            raise DataError(
                f"{written} in {smiles!r} is no atom; correct it, or leave the molecule out"
            )
        symbol, hydrogens, charge = found.groups()
    size = int(charge[1:]) if charge[1:].isdigit() else len(charge)
    signed = -size if charge.startswith("-") else size
    known = ELEMENTS.index(symbol.capitalize()) if symbol.capitalize() in ELEMENTS else 0
    explicit = 0 if hydrogens is None else min(4, int(hydrogens or 1))
    return [known, int(symbol.islower()), 3 + max(-2, min(2, signed)), explicit]


@dataclass(frozen=True)
class Molecules(Modality):
    """A column of SMILES in a CSV file, each a graph.

    Args:
        target: the column that is to be learned.
        text: the column with the SMILES.
        task: what the target is.
    """

    kind: ClassVar[str] = "molecule"
    as_is: ClassVar[bool] = True
    target: str
    text: str = "smiles"
    task: Literal["class", "regression"] = "regression"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        rows = rows_of(path)
        targets = column(path, rows, self.target, self.task)
        texts = column(path, rows, self.text, "class")
        return Examples([graph(str(text).strip()) for text in texts], targets)


class Atoms(Embedder):
    """A token for each atom, which knows what stands around it (Hu et al., 2019, https://arxiv.org/abs/1905.12265).

    .. math:: h_v \\leftarrow h_v + \\text{MLP}\\Big(h_v + \\sum_{u \\in N(v)} \\text{ReLU}(h_u + e_{uv})\\Big)

    Args:
        rounds: how many bonds away it knows of.
        width: numbers in an atom's state before it becomes a token.
    """

    input_kinds = frozenset({"molecule"})

    def __init__(self, rounds: int = 3, width: int = 64) -> None:
        super().__init__()
        self.rounds, self.width = rounds, width

    def build(self, inputs: InputSpec, width: int) -> None:
        self.atom = nn.ModuleList(
            nn.Embedding(count, self.width) for count in (len(ELEMENTS), 2, 6, 5)
        )
        self.bond = nn.Embedding(1 + max(BONDS.values()), self.width)
        self.update = nn.ModuleList(
            nn.Sequential(
                nn.Linear(self.width, 2 * self.width),
                nn.ReLU(),
                nn.Linear(2 * self.width, self.width),
            )
            for _ in range(self.rounds)
        )
        self.project = nn.Linear(self.width, width)

    def n_tokens(self, inputs: InputSpec) -> int:
        return inputs.shape[0]

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        state = sum(table(x[:, row]) for row, table in enumerate(self.atom))
        neighbours, kinds = x[:, ATOM : ATOM + SLOTS], x[:, ATOM + SLOTS :]
        molecule = torch.arange(len(x), device=x.device)[:, None, None]
        for update in self.update:
            around = (state[molecule, (neighbours - 1).clamp(min=0)] + self.bond(kinds)).relu()
            state = state + update(state + (around * (neighbours > 0)[..., None]).sum(1))
        return Embedded(self.project(state), mask[:, 0])


@hookimpl
def register_embedders(register: Register) -> None:
    register(Atoms)
