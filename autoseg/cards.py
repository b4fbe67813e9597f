"""Writing the cards of trained models: ``card`` in ``model.json``, and ``card.html`` beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.card import compared, made_with, new_card
from autoseg.errors import UserError
from autoseg.report.card_page import render_card
from autoseg.report.template import CARD
from autoseg.runfolder import RunFolder, read_json, write_json, write_text
from autoseg.train.modelfile import DESCRIPTION

log = logging.getLogger(__name__)


def write_card(
    place: Path, test: Mapping[str, Any], data: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the card of a training that has been tested.

    Args:
        place: The folder of the training, with model.json in it.
        test: The content of test.json.
        data: From :func:`autoseg.data.facts.data_facts`.
        environment: From :func:`autoseg.environment.describe_environment`, of the machine that trained.

    Returns:
        The facts.
    """
    model = read_json(place / DESCRIPTION)
    card = new_card(model, test, data, made_with(environment))
    _save(place, model, card)
    return card


def complete_cards(
    folder: RunFolder, comparison: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the cards of a run again, with what is known when all is done: costs, other seeds, place and verdict.

    Args:
        folder: The run folder.
        comparison: The content of comparison.json; None when there is none.
        data: From :func:`autoseg.data.facts.data_facts`, for trainings that have no card yet; without it these stay
            without one.

    Returns:
        The pages of the run.
    """
    written = []
    for description in sorted(folder.models.glob(f"*/seed-*/{DESCRIPTION}")):
        place = description.parent
        try:
            model = read_json(description)
            card = model.get("card")
            if card is None:
                test = place / "test.json"
                if data is None or not test.exists():
                    continue
                environment = read_json(folder.environment) if folder.environment.exists() else {}
                card = new_card(model, read_json(test), data, made_with(environment))
            cost_files = sorted(place.parent.glob("seed-*/cost.json"))
            cost = read_json(cost_files[0]) if cost_files else {}
            written.append(_save(place, model, compared(card, comparison or {}, cost)))
        except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
            log.warning("%s has no card: its files are damaged (%s)", place.relative_to(folder.path), error)
    return written


def _save(place: Path, model: Mapping[str, Any], card: Mapping[str, Any]) -> Path:
    """The page last: where there is one, the facts are there too. What is as it was is not touched."""
    page, text = place / CARD, render_card(card)
    if model.get("card") != card:
        write_json(place / DESCRIPTION, {**model, "card": card})
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        write_text(page, text)
    return page
