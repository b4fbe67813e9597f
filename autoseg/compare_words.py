"""What a comparison of runs says, in sentences: for the terminal and for the page."""

from __future__ import annotations

from autoseg.compare_runs import ComparedRuns

_LEAST_P = 1e-3


def headline(compared: ComparedRuns) -> str:
    """One sentence: who has the best mean rank, or the best score where there is one data set.

    Returns:
        A sentence for the head of page and table; models that are level are all named.
    """
    ranking = compared.ranking
    if not ranking.models:
        return "No model has a score on every data set, so nothing can be ranked."
    best = min(ranking.mean_ranks)
    first = [name for name, mean in zip(ranking.models, ranking.mean_ranks, strict=True) if mean == best]
    has = "has" if len(first) == 1 else "have"
    names = " and ".join(first)
    if len(compared.datasets) == 1:
        return f"{names} {has} the best mIoU on {compared.datasets[0]}: {_percent(compared.mean(first[0]))} %."
    of = f"{best:.2f} of {len(ranking.models)} over {len(compared.datasets)} data sets"
    return f"{names} {has} the best mean rank: {of}."


def ranks_sentence(compared: ComparedRuns) -> str:
    """What the Friedman test says, and how far apart mean ranks must be."""
    ranking = compared.ranking
    if ranking.chi2 is None or ranking.p_value is None or ranking.critical_difference is None:
        return ranking.why_not
    freedom = len(ranking.models) - 1
    found = f"Friedman test: chi-squared {ranking.chi2:.2f} with {freedom} degrees of freedom, {_p(ranking.p_value)}"
    if ranking.f_value is not None and ranking.f_p_value is not None:
        found += f" (Iman and Davenport: F = {ranking.f_value:.2f}, {_p(ranking.f_p_value)})"
    says = "the models differ" if ranking.differs else "no difference is shown"
    return f"{found}: {says}. Critical difference of mean ranks (Nemenyi, 5 %): {ranking.critical_difference:.2f}."


def short_test(compared: ComparedRuns) -> str:
    """The test in half a line, for the head of the page."""
    ranking = compared.ranking
    if ranking.p_value is None:
        return "Ranks cannot be tested here; see below."
    says = "The models differ" if ranking.differs else "No difference between the models is shown"
    return f"{says} (Friedman test, {_p(ranking.p_value)})."


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= _LEAST_P else f"p < {_LEAST_P:g}"


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"
