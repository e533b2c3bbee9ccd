"""How often what the analysis says is wrong, on simulated studies whose truth is known.

python benchmarks/calibration.py --studies 2000
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nested_lookahead.analysis import pooled, power, statistics, targets, variance
from nested_lookahead.analysis.verdicts import Evidence, decide

DELTA = 0.5
SPREAD = 2.0
"""Of what a seed does to all methods alike; differences of pairs have a standard deviation of 1 where not said."""

Array = np.ndarray[Any, Any]
Random = np.random.Generator


class Row(NamedTuple):
    what: str
    seen: str
    nominal: str


def share(hits: Any) -> str:
    """With its Clopper-Pearson interval."""
    hits = np.asarray(hits)
    low, high = statistics.clopper_pearson(int(hits.sum()), hits.size)
    return f"{100 * hits.mean():.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def mean(values: Any, unit: str = "") -> str:
    """With its t interval."""
    half = statistics.t_half_width(np.asarray(values, dtype=float)) or math.nan
    middle = float(np.mean(values))
    return f"{middle:.3f}{unit} [{middle - half:.3f}, {middle + half:.3f}]"


def differences(rng: Random, truths: Array, seeds: int, sd: float = 1.0) -> Array:
    """(comparisons, seeds): of methods with these true differences from one baseline, whose runs they all share."""
    common = rng.normal(0, SPREAD, seeds)
    runs = common + rng.normal(0, sd / math.sqrt(2), (len(truths) + 1, seeds))
    return np.asarray(runs[1:] + truths[:, None] - runs[0])


def words(family: Array, lost: Array | None = None) -> list[str]:
    """Verdicts on rows of paired differences; ``lost``: +1 where the method diverged, −1 its baseline, 0 neither."""
    evidence = []
    for i, d in enumerate(family):
        away = lost[i] if lost is not None else np.zeros(len(d))
        ranks = statistics.signed_rank(np.where(away, -np.inf * np.sign(away + 0.5), d)) if away.any() else None
        evidence.append(Evidence(statistics.paired(d[away == 0]), ranks))
    return [decision.word for decision in decide(evidence, DELTA)]


def different(said: list[str]) -> bool:
    return any(word.endswith(("better", "worse")) for word in said)


# --- verdicts -------------------------------------------------------------------------------------------------------


def equal_methods(rng: Random, studies: int) -> Iterator[Row]:
    for comparisons in (3, 6, 12):
        for seeds in (5, 10):
            found = [words(differences(rng, np.zeros(comparisons), seeds)) for _ in range(studies)]
            yield Row(
                f"{comparisons} comparisons of equal methods, {seeds} seeds: any better or worse",
                share([different(said) for said in found]),
                "≤ 5%",
            )


def coverage(rng: Random, studies: int) -> Iterator[Row]:
    for seeds in (3, 5, 10):
        results = [statistics.paired(d) for d in rng.normal(0.3, 1, (studies, seeds))]
        covered = [result.low <= 0.3 <= result.high for result in results]
        yield Row(f"{seeds} seeds: 95% intervals that hold the true difference", share(covered), "95%")


def powers(rng: Random, studies: int) -> Iterator[Row]:
    """The difference that is called detectable, where one is true and where all are."""
    for comparisons in (1, 6, 12):
        for seeds in (5, 10):
            effect = power.detectable_effect(seeds, None, 0.05 / comparisons)
            for true in sorted({1, comparisons}):
                truths = np.where(np.arange(comparisons) < true, effect, 0.0)
                found = [words(differences(rng, truths, seeds))[0] == "better" for _ in range(studies)]
                which = "" if comparisons == 1 else ", one true" if true == 1 else ", all true"
                yield Row(
                    f"{comparisons} comparisons{which}, {seeds} seeds: the detectable difference is found",
                    share(found),
                    "80%" if true == 1 else "≥ 80%",
                )


def stated_powers(rng: Random, studies: int) -> Iterator[Row]:
    """What a study states from its own spread, against the power that this difference really has in it."""
    for comparisons in (1, 6, 12):
        for seeds in (5, 10):
            alpha = 0.05 / comparisons
            effect = power.stated_effect(seeds, None, alpha)
            spreads = rng.normal(0, 1, (studies, seeds)).std(axis=1, ddof=1)
            found = [100 * power.power(spread * effect, seeds, None, alpha) for spread in spreads]
            what = (
                f"{comparisons} comparisons, {seeds} seeds: power of the difference stated from the study's own spread"
            )
            yield Row(what, mean(found, "%"), "80%")
    hits = []
    for d in rng.normal(0, 1, (studies, 5)):
        _, low, high = power.seeds_range(0.5, float(d.std(ddof=1)), 5, paired=True)
        hits.append(low <= power.seeds_needed(0.5, True) <= high)
    yield Row("5 seeds: the range of seeds needed holds the right number (34)", share(hits), "95%")


def survivors(rng: Random, studies: int) -> Iterator[Row]:
    """14 seeds; a method diverges on some of them, and where it does not, is better by d_z = 1 or not at all."""
    for rate in (0.0, 0.1, 0.4):
        for effect in (1.0, 0.0):
            found, naive = [], []
            for _ in range(studies):
                d = differences(rng, np.array([effect]), 14)
                lost = (rng.random((1, 14)) < rate).astype(int)
                found.append(words(d, lost)[0])
                left = d[lost == 0]
                naive.append(statistics.paired(left).p < 0.05 and left.mean() > 0)
            nominal = {0.0: "≥ 80%", 0.1: "", 0.4: "≤ 5%"}[rate] if effect else "≤ 2.5%"
            kind = f"better by d_z = {effect:g} where it finishes" if effect else "equal where it finishes"
            what = f"{rate:.0%} of a method's runs diverge, {kind}, 14 seeds: "
            yield Row(what + "better", share([word == "better" for word in found]), nominal)
            yield Row(what + "better by the survivors' t test", share(naive), "for comparison")
        both = []
        for _ in range(studies):
            lost = (rng.random((1, 14)) < rate).astype(int) - (rng.random((1, 14)) < rate)
            both.append(different(words(differences(rng, np.zeros(1), 14), lost)))
        yield Row(f"{rate:.0%} of both methods' runs diverge, both equal: better or worse", share(both), "≤ 5%")


def equivalence(rng: Random, studies: int) -> Iterator[Row]:
    for comparisons in (1, 6, 12):
        for seeds in (5, 10):
            truths = np.full(comparisons, DELTA)
            found = [words(differences(rng, truths, seeds, 0.4)) for _ in range(studies)]
            yield Row(
                f"{comparisons} true differences of δ, {seeds} seeds: any called equivalent",
                share([any(word.endswith("equivalent") for word in said) for said in found]),
                "≤ 5%",
            )
    found = [words(differences(rng, np.zeros(1), 10, 0.4)) for _ in range(studies)]
    yield Row("a true difference of 0, 10 seeds: equivalent", share([said == ["equivalent"] for said in found]), "")


# --- choosing, shares, pooling, times -------------------------------------------------------------------------------


def equal_settings(rng: Random, studies: int) -> Iterator[Row]:
    """27 settings against one, all equal, 10 seeds: the best on all, on each other seed, on one half."""
    inflation, naive, others, half = [], [], [], []
    for _ in range(studies):
        values, single = rng.normal(0, 1, (27, 10)), rng.normal(0, 1, 10)
        best = values.mean(axis=1).argmax()
        inflation.append(values[:, :3].mean(axis=1).max())
        naive.append(statistics.paired(values[best] - single).p < 0.05)
        others.append(statistics.paired(statistics.leave_one_seed_out(values) - single).p < 0.05)
        chosen = values[:, :5].mean(axis=1).argmax()
        half.append(different(words((values[chosen, 5:] - single[5:])[None])))
    yield Row("27 equal settings, 3 seeds: by how many standard deviations the best looks better", mean(inflation), "0")
    yield Row("27 equal settings against one: different by the seeds that chose", share(naive), "for comparison")
    yield Row(
        "27 equal settings against one: different by each seed's choice on the others", share(others), "for comparison"
    )
    yield Row(
        "27 equal settings against one: different, chosen on one half, compared on the other", share(half), "≤ 5%"
    )


def shares(rng: Random, studies: int) -> Iterator[Row]:
    settings, raw = [], []
    for values in rng.normal(0, 1, (studies, 3, 3, 3, 3)):
        settings.append(1 - variance.anova_shares(values)["noise"])
        raw.append(values.mean(axis=-1).var() / values.var())
    yield Row("3 × 3 × 3 settings × 3 seeds of pure noise: share of the settings and the seeds", mean(settings), "0")
    yield Row("the same, uncorrected (eta squared of the settings)", mean(raw), "for comparison")
    effects, seeds = np.array([-1.0, 0, 1])[:, None, None], np.linspace(-1, 1, 5)
    truth: dict[Any, float] = {(0,): 2 / 3, (1,): 0.0, "seeds": 0.5, "noise": 1.0}
    hits: dict[Any, list[bool]] = {effect: [] for effect in truth}
    for draw in range(min(studies, 400)):
        found = variance.anova_intervals(effects + seeds + rng.normal(0, 1, (3, 3, 5)), draws=300, seed=draw)
        for effect, size in truth.items():
            hits[effect].append(found[effect][0] <= size / sum(truth.values()) <= found[effect][1])
    for name, effect in (("a setting", (0,)), ("the seeds", "seeds"), ("the noise", "noise"), ("no effect", (1,))):
        what = f"3 × 3 settings × 5 seeds: bootstrap intervals that hold the true share of {name}"
        yield Row(what, share(hits[effect]), "95%")


def strata(rng: Random, studies: int) -> Iterator[Row]:
    for seeds in (3, 5):
        for tau in (0.0, 0.5):
            here, others, differ = [], [], []
            for _ in range(min(studies, 1000)):
                truths = rng.normal(0, tau, 6)
                parts = [pooled.Stratum([d], [1.0]) for d in truths[:, None] + rng.normal(0, 1, (6, seeds))]
                one, (all_such, _) = pooled.stratified(parts), pooled.random_effects(parts)
                here.append(one.low <= truths.mean() <= one.high)
                others.append(all_such.low <= 0 <= all_such.high)
                differ.append(pooled.heterogeneity(parts).p < 0.05)
            what = f"6 strata of {seeds} pairs, tau = {tau:g}: "
            yield Row(what + "intervals of these strata's mean that hold it", share(here), "95%")
            yield Row(what + "intervals of all such strata's mean that hold it", share(others), "95%")
            yield Row(what + "called different", share(differ), "5%" if tau == 0 else "")


def times(rng: Random, studies: int) -> Iterator[Row]:
    for missed in (0.0, 0.2):
        found = []
        for _ in range(studies):
            common = rng.lognormal(0, 0.5, 10)
            one, other = (
                np.where(rng.random(10) < missed, np.inf, common * rng.lognormal(0, 0.2, 10)) for _ in range(2)
            )
            found.append(targets.time_ratio(one, other).p < 0.05)
        yield Row(f"equal times to a target, {missed:.0%} missed, 10 seeds: faster or slower", share(found), "≤ 5%")


PARTS: dict[str, Callable[[Random, int], Iterator[Row]]] = {
    "equal": equal_methods,
    "coverage": coverage,
    "power": powers,
    "stated": stated_powers,
    "survivors": survivors,
    "equivalence": equivalence,
    "settings": equal_settings,
    "shares": shares,
    "strata": strata,
    "times": times,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"which, with commas (default: all): {', '.join(PARTS)}"
    )
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in tqdm(arguments.parts.split(",")):
        rows += PARTS[name](np.random.default_rng(arguments.seed), arguments.studies)
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    print(f"{arguments.studies} studies each; share or mean with its 95% interval; nominal")
    for row in rows:
        print(f"{row.what:<{widths[0]}}  {row.seen:<{widths[1]}}  {row.nominal}".rstrip())


if __name__ == "__main__":
    main()
