"""Dividing images into train, val and test without leaking: whole groups, seeded, the same on every machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from autoseg.data.base import SPLITS
from autoseg.errors import Problem, UserError


def make_splits(
    names: Sequence[str], groups: Sequence[str] | None, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[int]]:
    """Divide images into train, val and test; images of one group stay together.

    Groups are put in an order drawn from a hash of the seed and the group name, so the outcome does not depend on
    the order of ``names``. Test, then val, take the groups that still fit into their share; when no group fits they
    take the smallest. Train gets the rest.

    Args:
        names: One unique name for each image.
        groups: One group name for each image, or None when every image is its own group.
        val_fraction: Share of the images wanted in val, 0..1; 0 leaves val empty.
        test_fraction: Share of the images wanted in test, 0..1; 0 leaves test empty.
        seed: Another seed gives another division.

    Returns:
        Indices into ``names`` for ``"train"``, ``"val"`` and ``"test"``, each list in the order of the names.

    Raises:
        UserError: The fractions make no sense, or there are fewer groups than splits to fill.

    Example:
        >>> parts = make_splits(["a1", "a2", "b1", "b2", "c1", "c2"], list("aabbcc"), 0.3, 0.3, seed=0)
        >>> [len(parts[split]) for split in ("train", "val", "test")]
        [2, 2, 2]
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        what = f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing for training"
        raise UserError(Problem(what, "data", "choose two fractions of at least 0 whose sum is below 1"))
    members: dict[str, list[int]] = {}
    for index, group in enumerate(names if groups is None else groups):
        members.setdefault(group, []).append(index)
    wanted = [split for split, share in (("test", test_fraction), ("val", val_fraction)) if share > 0]
    if len(members) <= len(wanted):
        unit = "image(s)" if groups is None else f"group(s) ({', '.join(sorted(members))})"
        what = f"{len(members)} {unit} cannot fill {len(wanted) + 1} splits"
        fix = (
            "add images" if groups is None else "add images of other groups, or change 'groups' to make smaller groups"
        )
        raise UserError(Problem(what, "data", fix))

    remaining = sorted(members, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    parts: dict[str, list[int]] = {split: [] for split in SPLITS}
    for done, split in enumerate(wanted):
        share = test_fraction if split == "test" else val_fraction
        target = max(1, round(share * len(names)))
        spare = len(remaining) - (len(wanted) - done)  # groups this split may take, one kept for each later split
        taken: list[str] = []
        room = target
        for group in remaining:
            if len(taken) < spare and len(members[group]) <= room:
                taken.append(group)
                room -= len(members[group])
        taken = taken or [min(remaining, key=lambda group: len(members[group]))]
        parts[split] = [index for group in taken for index in members[group]]
        remaining = [group for group in remaining if group not in set(taken)]
    parts["train"] = [index for group in remaining for index in members[group]]
    return {split: sorted(indices, key=lambda index: names[index]) for split, indices in parts.items()}


def group_ids(stems: Sequence[str], pattern: str) -> list[str]:
    r"""The group of each file: what a regular expression finds in its stem.

    Args:
        stems: File names without ending.
        pattern: Searched in each stem; the first bracket, or the whole match when there is none, is the group.

    Raises:
        UserError: The pattern is not valid, or finds nothing in some stems.

    Example:
        >>> group_ids(["steel3_001", "steel3_002", "steel7_001"], r"(steel\d+)_")
        ['steel3', 'steel3', 'steel7']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        fix = "write a regular expression, for example '^([^_]+)_' for what stands before the first underscore"
        raise UserError(Problem(f"'{pattern}' is no regular expression: {error}", "groups", fix)) from error
    found = [match[1 if compiled.groups else 0] if (match := compiled.search(stem)) else None for stem in stems]
    lost = [stem for stem, group in zip(stems, found, strict=True) if not group]
    if lost:
        what = f"'{pattern}' finds no group in {len(lost)} file name(s): {', '.join(lost[:10])}"
        fix = "change the regular expression so that it fits all file names (without their ending)"
        raise UserError(Problem(what + (f" and {len(lost) - 10} more" if len(lost) > 10 else ""), "groups", fix))
    return [str(group) for group in found]
