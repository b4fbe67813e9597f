"""The colours of every figure in the report.

The series colours are those of Okabe and Ito, which stay apart for the common kinds of colour blindness,
followed by darker ones for long lists. A model keeps its colour through the whole page: blue for the
finalist, greys for controls, the others in order for the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence

INK = "#1f2733"
MUTED = "#667085"
LINE = "#d8dde5"
ACCENT = "#0072b2"

_FINALISTS = (ACCENT, "#332288", "#44aa99")
_CONTROLS = ("#6b7280", "#a3a9b5", "#3f4754")
_BASELINES = ("#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c564b", "#999933", "#882255")

NODE_FILLS = (
    "#d6e8f5", "#fbe3bf", "#d3eee2", "#f8d9c6", "#f3ddea", "#e0dcf0",
    "#e9e6cc", "#dfe7ea", "#e6d5cf", "#cfeef2", "#e3f0c4", "#f6cfd4",
)  # fmt: skip
NODE_LINES = (
    "#0072b2", "#c98a00", "#009e73", "#d55e00", "#b8608e", "#5f4b9e",
    "#8a8430", "#53707c", "#80503f", "#1a93a3", "#6f9a1f", "#c2334b",
)  # fmt: skip


def model_colors(roles: Sequence[str]) -> list[str]:
    """One colour per model, chosen by its role and its place among the models of that role.

    Args:
        roles: ``finalist``, ``baseline``, ``control`` or anything else (treated as a baseline), in order of display.

    Returns:
        ``#rrggbb`` strings, as many as there are roles.

    Example:
        >>> model_colors(["finalist", "baseline", "control", "baseline"])
        ['#0072b2', '#e69f00', '#6b7280', '#009e73']
    """
    seen: dict[str, int] = {}
    colors = []
    for role in roles:
        family = {"finalist": _FINALISTS, "control": _CONTROLS}.get(role, _BASELINES)
        kind = role if role in ("finalist", "control") else "baseline"
        place = seen.get(kind, 0)
        seen[kind] = place + 1
        colors.append(family[place % len(family)])
    return colors


def hex_color(rgb: Sequence[int]) -> str:
    """An RGB triple (0..255) as ``#rrggbb``.

    Example:
        >>> hex_color((230, 159, 0))
        '#e69f00'
    """
    red, green, blue = (int(v) for v in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"
