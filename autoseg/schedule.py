"""How long jobs take when several processes share them, and how long each may take under a budget."""

from __future__ import annotations


def makespan(searches: list[float], trainings: list[float], models: int, workers: int) -> float:
    """Seconds until all jobs are done when each free worker takes the first job that can start.

    Args:
        searches: Seconds of each search, which start first; for a multi-trial search, of each worker's part of it.
        trainings: Seconds of each training, seed by seed, ``models`` per seed; the first of each seed is
            the finalist's and waits for all searches.
        models: Networks per seed.
        workers: Processes.

    Example:
        >>> makespan([30], [10, 10, 10, 10], models=2, workers=2)
        40.0
        >>> makespan([30], [10, 10, 10, 10], models=2, workers=1)
        70.0
        >>> makespan([30, 30], [10, 10], models=2, workers=2)
        40.0
    """
    free = [0.0] * workers
    search = 0.0
    for seconds in searches:
        worker = min(range(workers), key=free.__getitem__)
        free[worker] += seconds
        search = max(search, free[worker])
    waiting = list(enumerate(trainings))
    while waiting:
        worker = min(range(workers), key=free.__getitem__)
        now = free[worker]
        ready = next((job for job in waiting if job[0] % models or now >= search), None)
        if ready is None:
            free[worker] = search
            continue
        waiting.remove(ready)
        free[worker] = now + ready[1]
    return max(free)


def longest_training(left: float, searches: list[float], around: dict[str, float], seeds: int, workers: int) -> float:
    """Seconds that each training may take so that all is done in time, found by bisection.

    Args:
        left: Seconds until all must be done.
        searches: As for :func:`makespan`.
        around: Seconds before and after a training, for each network; the finalist comes first.
        seeds: Trainings of each network.
        workers: Processes.

    Returns:
        Seconds; 0 when there is no time for any.

    Example:
        >>> round(longest_training(100, [30], {"searched": 2, "unet": 3}, seeds=1, workers=1), 3)
        32.5
    """
    low, high = 0.0, max(left, 0.0)
    for _ in range(40):
        middle = (low + high) / 2
        fits = makespan(searches, [middle + extra for extra in around.values()] * seeds, len(around), workers) <= left
        low, high = (middle, high) if fits else (low, middle)
    return low
