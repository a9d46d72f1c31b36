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
from lit_align.orca.modalities.base import column_targets, read_csv_rows

ELEMENTS = ("?", "C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "B", "Si", "Se", "H")
BONDS = {"-": 1, "/": 1, "\\": 1, "=": 2, "#": 3, ":": 4}
AROMATIC_BOND = 4
MAX_NEIGHBOURS = 6  # of an atom; further ones are left out
ATOM_ROWS = 4  # element, aromatic, charge from 1 to 5, hydrogens written with the atom
TOKEN = re.compile(r"(\[[^\]]*\]|Br|Cl|[BCNOPSFI]|[bcnops])|([-=#:/\\])|%(\d\d)|(\d)|([().])")
BRACKET = re.compile(r"\[\d*([A-Z][a-z]?|[a-z]{1,2})@*(?:H(\d*))?([+-]\d|[+-]*)(?::\d+)?\]")


class SmilesParser:
    """Atoms and bonds of a SMILES, in the order in which they are written.

    Args:
        smiles: the string; `parse` reads it.
    """

    def __init__(self, smiles: str) -> None:
        self.smiles = smiles
        self.atoms: list[list[int]] = []
        self.neighbours: list[list[tuple[int, int]]] = []  # of each atom: the other atom, the bond
        self.last_atom, self.next_bond = -1, 0
        self.branches: list[int] = []
        self.rings: dict[str, tuple[int, int]] = {}  # opened: the atom, the bond

    def parse(self) -> None:
        """Read the whole string.

        Raises:
            DataError: if it is not a SMILES.
        """
        position = 0
        while position < len(self.smiles):
            match = TOKEN.match(self.smiles, position)
            if match is None:
                raise DataError(
                    f"{self.smiles!r} is not a SMILES from character {position + 1} on; correct it, or leave it out"
                )
            position = match.end()
            atom, bond, long_ring, ring, mark = match.groups()
            if atom:
                self._add_atom(atom)
            elif bond:
                self.next_bond = BONDS[bond]
            elif mark:
                self._read_mark(mark)
            else:
                self._open_or_close_ring(long_ring or ring)
        if self.rings or self.branches or not self.atoms:
            raise DataError(
                f"{self.smiles!r} is not a SMILES: a ring or a branch is left open; correct it, or leave it out"
            )

    def _add_atom(self, symbol: str) -> None:
        self.atoms.append(_parse_atom(symbol, self.smiles))
        self.neighbours.append([])
        atom = len(self.atoms) - 1
        if self.last_atom >= 0:
            self._bind(self.last_atom, atom, self.next_bond)
        self.last_atom, self.next_bond = atom, 0

    def _read_mark(self, mark: str) -> None:
        if mark == "(":
            self.branches.append(self.last_atom)
        elif mark == ")" and self.branches:
            self.last_atom = self.branches.pop()
        elif mark == ".":
            self.last_atom = -1

    def _open_or_close_ring(self, number: str) -> None:
        if number in self.rings:
            atom, bond = self.rings.pop(number)
            self._bind(self.last_atom, atom, self.next_bond or bond)
        else:
            self.rings[number] = (self.last_atom, self.next_bond)
        self.next_bond = 0

    def _bind(self, first: int, second: int, bond: int) -> None:
        """Connect two atoms; a bond that is not written is aromatic between aromatic atoms, or single."""
        if not bond:
            bond = AROMATIC_BOND if self.atoms[first][1] and self.atoms[second][1] else 1
        self.neighbours[first].append((second, bond))
        self.neighbours[second].append((first, bond))


def parse_smiles(smiles: str) -> Tensor:
    """Atoms in the order they are written, ``[4 + 12, atoms]``: what each is, its neighbours from 1 on, their bonds.

    Example:
        Ethanol: two carbons and an oxygen; the second carbon is bound to both others.

        >>> parse_smiles("CCO")[[0, 4, 5]].tolist()
        [[1, 1, 3], [2, 1, 2], [0, 3, 0]]
    """
    parser = SmilesParser(smiles)
    parser.parse()
    rows = torch.zeros(ATOM_ROWS + 2 * MAX_NEIGHBOURS, len(parser.atoms), dtype=torch.long)
    rows[:ATOM_ROWS] = torch.tensor(parser.atoms).T
    for atom, neighbours in enumerate(parser.neighbours):
        for slot, (neighbour, bond) in enumerate(neighbours[:MAX_NEIGHBOURS]):
            rows[ATOM_ROWS + slot, atom] = neighbour + 1
            rows[ATOM_ROWS + MAX_NEIGHBOURS + slot, atom] = bond
    return rows


def _parse_atom(text: str, smiles: str) -> list[int]:
    """Element, aromatic, charge and hydrogens of an atom, with or without brackets."""
    symbol, hydrogens, charge = text, None, ""
    if text[0] == "[":
        match = BRACKET.fullmatch(text)
        if match is None:
            raise DataError(
                f"{text} in {smiles!r} is not an atom; correct it, or leave the molecule out"
            )
        symbol, hydrogens, charge = match.groups()
    size = int(charge[1:]) if charge[1:].isdigit() else len(charge)
    if charge.startswith("-"):
        size = -size
    name = symbol.capitalize()
    element = ELEMENTS.index(name) if name in ELEMENTS else 0
    explicit_hydrogens = 0 if hydrogens is None else min(4, int(hydrogens or 1))
    return [element, int(symbol.islower()), 3 + max(-2, min(2, size)), explicit_hydrogens]


@dataclass(frozen=True)
class Molecules(Modality):
    """A column of SMILES in a CSV file, each a graph.

    Args:
        target: the column to predict.
        text: the column with the SMILES.
        task: kind of the target.
    """

    kind: ClassVar[str] = "molecule"
    as_is: ClassVar[bool] = True
    target: str
    text: str = "smiles"
    task: Literal["class", "regression"] = "regression"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        rows = read_csv_rows(path)
        targets = column_targets(path, rows, self.target, self.task)
        texts = column_targets(path, rows, self.text, "class")
        return Examples([parse_smiles(str(text).strip()) for text in texts], targets)


class Atoms(Embedder):
    """A token for each atom, from message passing over its bonds (Hu et al., 2019, https://arxiv.org/abs/1905.12265).

    .. math:: h_v \\leftarrow h_v + \\text{MLP}\\Big(h_v + \\sum_{u \\in N(v)} \\text{ReLU}(h_u + e_{uv})\\Big)

    Args:
        rounds: of message passing, which is how many bonds away an atom affects a token.
        width: of an atom's state before it becomes a token.
    """

    input_kinds = frozenset({"molecule"})

    def __init__(self, rounds: int = 3, width: int = 64) -> None:
        super().__init__()
        self.rounds, self.width = rounds, width

    def build(self, inputs: InputSpec, d_model: int) -> None:
        sizes = (len(ELEMENTS), 2, 6, 5)  # of the rows of an atom
        self.atom = nn.ModuleList(nn.Embedding(size, self.width) for size in sizes)
        self.bond = nn.Embedding(1 + max(BONDS.values()), self.width)
        self.update = nn.ModuleList(self._make_mlp() for _ in range(self.rounds))
        self.project = nn.Linear(self.width, d_model)

    def _make_mlp(self) -> nn.Module:
        hidden = 2 * self.width
        return nn.Sequential(
            nn.Linear(self.width, hidden), nn.ReLU(), nn.Linear(hidden, self.width)
        )

    def n_tokens(self, inputs: InputSpec) -> int:
        return inputs.shape[0]

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        state = sum(table(x[:, row]) for row, table in enumerate(self.atom))
        neighbours = x[:, ATOM_ROWS : ATOM_ROWS + MAX_NEIGHBOURS]
        bonds = x[:, ATOM_ROWS + MAX_NEIGHBOURS :]
        is_bound = (neighbours > 0)[..., None]
        molecule = torch.arange(len(x), device=x.device)[:, None, None]
        for update in self.update:
            neighbour_state = state[molecule, (neighbours - 1).clamp(min=0)]
            messages = (neighbour_state + self.bond(bonds)).relu() * is_bound
            state = state + update(state + messages.sum(1))
        return Embedded(self.project(state), mask[:, 0])


@hookimpl
def register_embedders(register: Register) -> None:
    register(Atoms)
