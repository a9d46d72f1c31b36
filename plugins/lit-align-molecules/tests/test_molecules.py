"""Molecules by hand, and a thousand of them against what RDKit counted (the columns of the ESOL table)."""

import csv
import os
from pathlib import Path

import pytest
import torch
from lit_align_molecules import ATOM_ROWS, MAX_NEIGHBOURS, Atoms, Molecules, parse_smiles

from lit_align.cli.main import main
from lit_align.errors import DataError
from lit_align.orca.testing import check_embedder

DATA = Path(os.environ.get("LIT_ALIGN_DATA", Path(__file__).parents[4] / "shared" / "data"))
ESOL = DATA / "molecules" / "delaney-processed.csv"


def bonds(smiles):
    """Pairs of atoms from 1 on, each once, with the kind of bond."""
    rows = parse_smiles(smiles)
    pairs = zip(
        rows[ATOM_ROWS : ATOM_ROWS + MAX_NEIGHBOURS].T.tolist(),
        rows[ATOM_ROWS + MAX_NEIGHBOURS :].T.tolist(),
        strict=True,
    )
    return sorted(
        (number, other, kind)
        for number, (others, kinds) in enumerate(pairs, 1)
        for other, kind in zip(others, kinds, strict=True)
        if other > number
    )


@pytest.mark.parametrize(
    ("smiles", "wanted"),
    [
        ("C", []),
        ("C=C#N", [(1, 2, 2), (2, 3, 3)]),
        ("CC(=O)O", [(1, 2, 1), (2, 3, 2), (2, 4, 1)]),  # acetic acid
        ("C1CC1", [(1, 2, 1), (1, 3, 1), (2, 3, 1)]),
        ("C=1CC1", [(1, 2, 1), (1, 3, 2), (2, 3, 1)]),
        ("c1ccccc1", [(1, 2, 4), (1, 6, 4), (2, 3, 4), (3, 4, 4), (4, 5, 4), (5, 6, 4)]),
        ("C%12CC%12", [(1, 2, 1), (1, 3, 1), (2, 3, 1)]),
        ("[Na+].[Cl-]", []),
        ("F/C=C\\F", [(1, 2, 1), (2, 3, 2), (3, 4, 1)]),
    ],
)
def test_bonds(smiles, wanted):
    assert bonds(smiles) == wanted


def test_atoms():
    """Element (C 1, N 2, O 3, Cl 7, sodium unknown), aromatic, charge + 3, hydrogens written."""
    assert parse_smiles("c1cc[nH]c1")[:ATOM_ROWS, 3].tolist() == [2, 1, 3, 1]
    assert parse_smiles("[Na+].[Cl-]")[:ATOM_ROWS].T.tolist() == [[0, 0, 4, 0], [7, 0, 2, 0]]
    assert parse_smiles("C[N+](=O)[O-]")[:ATOM_ROWS].T.tolist() == [
        [1, 0, 3, 0],
        [2, 0, 4, 0],
        [3, 0, 3, 0],
        [3, 0, 2, 0],
    ]
    assert parse_smiles("[13C@@H2]")[:ATOM_ROWS, 0].tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("smiles", ["", "C1CC", "C(C", "C?C", "[C", "[+]"])
def test_what_is_no_molecule_is_refused(smiles):
    with pytest.raises(DataError, match="is not a"):
        parse_smiles(smiles)


def test_rings_and_degrees_are_those_that_rdkit_counted():
    """Of four cages RDKit counts one ring more than bonds close: all alike, none left out."""
    if not ESOL.exists():
        pytest.skip(f"needs {ESOL}; set LIT_ALIGN_DATA")
    more = []
    with ESOL.open() as file:
        for row in csv.DictReader(file):
            rows = parse_smiles(row["smiles"].strip())
            degrees = (rows[ATOM_ROWS : ATOM_ROWS + MAX_NEIGHBOURS] > 0).sum(0)
            assert int(degrees.min()) == int(row["Minimum Degree"]), row["smiles"]
            more.append(int(row["Number of Rings"]) - (int(degrees.sum()) // 2 - rows.shape[1] + 1))
    assert more.count(0) == 1124
    assert more.count(1) == 4


def test_the_embedder_keeps_the_promises():
    check_embedder(
        Atoms(width=8),
        "molecule",
        [parse_smiles(smiles) for smiles in ("CC(=O)O", "c1cc[nH]c1", "[Na+].[Cl-]", "C")],
    )


def test_a_token_knows_its_neighbourhood_and_not_where_it_is_written():
    """Propanol from either end; with one round, the far carbon does not know of the oxygen."""
    torch.manual_seed(0)
    embedder = Atoms(rounds=1, width=8)
    check_embedder(embedder, "molecule", [parse_smiles("CCCO"), parse_smiles("OCCC")])
    one, other, plain = (
        embedder(x[None], torch.ones_like(x[None], dtype=torch.bool)).tokens[0]
        for x in map(parse_smiles, ("CCCO", "OCCC", "CCCC"))
    )
    torch.testing.assert_close(one, other.flip(0))
    torch.testing.assert_close(one[0], plain[0])
    assert not torch.allclose(one[2], plain[2])


def test_a_table_of_molecules(tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("smiles,y\nCCO,1.5\nC,2\n")
    found = Molecules(target="y")(str(file), "train")
    assert found.targets.tolist() == [[1.5], [2.0]]
    assert torch.equal(found.inputs[0], parse_smiles("CCO"))


def test_its_configuration_parses(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["fit", "-c", str(Path(__file__).parents[1] / "orca_esol.yaml"), "--print_config"])
    assert not exit.value.code
    assert "lit_align_molecules.Atoms" in capsys.readouterr().out
