"""A digest of tokenised rows: two data sets with the same digest give the same steps."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

from lit_align.types import Group, Tree


def trees_digest(trees: Iterable[Tree]) -> str:
    """Digest of trees in their order: of ids, of what is scored, and of the labels; not of text or place.

    Example:
        >>> tree = Tree([1, 2], [[3]], [[True]], Group("a", ["b"]))
        >>> trees_digest([tree]) == trees_digest([tree._replace(prompt=[1, 4])])
        False
    """
    return join_digests(map(tree_digest, trees))


def join_digests(digests: Iterable[bytes]) -> str:
    """The digest of trees from those of each of them, by `tree_digest`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in digests:
        digest.update(part)
    return digest.hexdigest()


def tree_digest(tree: Tree) -> bytes:
    """Digest of one tree."""
    digest = hashlib.blake2b(digest_size=16)
    lengths = array("q", [len(tree.prompt), len(tree.responses), tree.mismatched])
    lengths.extend(map(len, tree.responses))
    ids = array("q", tree.prompt)
    is_scored = bytearray()
    for response, scored in zip(tree.responses, tree.scored, strict=True):
        ids.extend(response)
        is_scored += bytes(scored)
    for branch in tree.branches:
        lengths.extend((branch.response, len(branch.prompt), len(branch.ids)))
        ids.extend(branch.prompt)
        ids.extend(branch.ids)
        is_scored += bytes(branch.scored)
    for part in (lengths, ids, is_scored, repr(label_fields(tree.group)).encode()):
        digest.update(part)
    return digest.digest()


def label_fields(group: Group) -> tuple[object, ...]:
    """What a row says of its responses, and who says it: equal votes of two people are two votes."""
    labels: tuple[object, ...] = (
        group.pairs,
        group.desirable,
        group.ranking,
        group.ratings,
        group.target,
    )
    if group.steps:
        labels += (group.steps,)
    if group.annotator:
        labels += (group.annotator,)
    return labels
