"""A fair sweep: stage after stage of runs, and the choice between them. See docs/fair.md."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from nested_lookahead.errors import UserError
from nested_lookahead.metric import Metric
from nested_lookahead.runs import fair, files
from nested_lookahead.runs.build import build_source
from nested_lookahead.runs.grids import ListLauncher, RunSweeper, refuse_empty
from nested_lookahead.runs.job import require_validation
from nested_lookahead.runs.sweeps import PlannedRun
from nested_lookahead.runs.workers import importing

log = logging.getLogger(__name__)

STAGES = ("tuning", "finalists", "final")
WORDS = ("runs_of", "follows", "without", "weights")
"""Keys of an arm that are none of the configuration's."""


class FairSweeper(RunSweeper):
    """Every arm gets the same number of trials; the best on validation goes on to fresh seeds.

    Three stages, each a set of ordinary runs: ``trials`` points of each arm's space on the ``tuning_seeds``; the best
    ``finalists`` of them on the ``finalist_seeds`` as well; the best of these, by all tuning seeds, on the
    ``final_seeds``. Arms with nothing to choose take part in the last stage alone. Seeds and ranges are written as
    Hydra's sweeps are.

    Args:
        params: keys with values, or ranges, that all arms have.
        arms: by their names, what each has besides; see `fair.Arm`. None leaves one out that a preset has.
        final_params: what the final runs have besides, such as a denser evaluation.
        until: the last stage to make: tuning, finalists or final.
        primary, secondary: pairs of arms to compare, ``nested - lookahead``; by default each arm with the first.
        sobol_seed: of the scrambled sequence that trials are points of.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        arms: Mapping[str, Mapping[str, Any]] | None = None,
        trials: int = 24,
        tuning_seeds: Any = "1000,1001",
        finalists: int = 3,
        finalist_seeds: Any = "1002,1003,1004",
        final_seeds: Any = "range(20)",
        final_params: Mapping[str, Any] | None = None,
        until: str = "final",
        primary: Sequence[str] = (),
        secondary: Sequence[str] = (),
        sobol_seed: int = 0,
    ) -> None:
        super().__init__(max_batch_size=None, params=dict(params or {}))
        self.named = {name: settings for name, settings in (arms or {}).items() if settings is not None}
        for name, value in (("trials", trials), ("finalists", finalists)):
            if type(value) is not int or value < 1:
                raise UserError(f"hydra.sweeper.{name}={value}: must be an integer >= 1")
        if until not in STAGES:
            raise UserError(f"hydra.sweeper.until={until}: must be one of {', '.join(STAGES)}")
        self.until, self.final_params = until, dict(final_params or {})
        self.count, self.finalists, self.sobol_seed = trials, finalists, sobol_seed
        self.seeds_text = {"tuning": tuning_seeds, "finalists": finalist_seeds, "final": final_seeds}
        self.metric = Metric("")
        self.contrasts_text = {"primary": list(primary), "secondary": list(secondary)}

    def sweep(self, arguments: list[str]) -> Any:
        self._prepare(arguments)
        trials = {name: self._trials(arm) for name, arm in self.arms.items() if arm.runs_of is None and not arm.follows}
        undecided = {
            name: own
            for name, own in trials.items()
            if len(own) > 1 or any(len(arm.weights) > 1 for _, arm in self._readers(name))
        }
        if not undecided:
            return self._finish(trials, {}, 1)
        sign = self._tune("tuning", undecided, self.seeds["tuning"])
        if self.until == "tuning":
            return []
        if sign is not None:
            best = {
                name: fair.finalists(arm, trials[arm.runs_of or name], sign, self.finalists)
                for name, arm in self._choosing()
                if (arm.runs_of or name) in undecided
            }
            further = {
                name: [t for t in own if any(t in best[arm.name] for _, arm in self._readers(name))]
                for name, own in undecided.items()
            }
            sign = self._tune("finalists", further, self.seeds["finalists"])
        if sign is None:
            self._say_count("finalists", f"the best {self.finalists} trials of each arm")
            self._say_count("final", "the best one of each arm")
            return []
        return self._finish(trials, best, sign)

    def _prepare(self, arguments: list[str]) -> None:
        """Parse and check all that can be, before the first run."""
        assert self.hydra_context is not None
        assert self.config is not None
        self.parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed = self.parser.parse_overrides(arguments)
        for override in typed:
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: hydra/sweeper=fair makes the sweep; seeds are its final_seeds")
        self.typed = {o.get_key_element(): o.input_line or "" for o in typed if o.get_key_element() != "study"}
        if "seed" in {*self.typed, *self.params}:
            raise UserError("seed: hydra/sweeper=fair has hydra.sweeper.tuning_seeds, finalist_seeds and final_seeds")
        self.study = str(self.config.study)
        self.seeds = {name: self._seeds(name, text) for name, text in self.seeds_text.items()}
        for (one, a), (other, b) in itertools.combinations(self.seeds.items(), 2):
            if both := sorted({*a} & {*b}):
                raise UserError(f"hydra.sweeper: seed {both[0]} is among those of {one} and of {other}")
        self.arms = {name: self._arm(name, settings) for name, settings in self.named.items()}
        self.contrasts = {name: [_pair(text) for text in texts] for name, texts in self.contrasts_text.items()}
        fair.check_arms(self.arms, [pair for pairs in self.contrasts.values() for pair in pairs])
        if not any(self.contrasts.values()):
            first, *others = self.arms
            self.contrasts["primary"] = [(name, first) for name in others]

    def _seeds(self, name: str, text: Any) -> list[int]:
        key = f"hydra.sweeper.{name if name != 'finalists' else 'finalist'}_seeds"
        override = self.parser.parse_override(f"seed={text}")
        refuse_empty([override])
        texts = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else [str(override.value())]
        found = [int(one) for one in texts if one.isdecimal()]
        if len({*found}) < len(texts):
            raise UserError(f"{key}={text}: must be different integers, such as 0,1,2 or range(20)")
        return found

    def _arm(self, name: str, settings: Mapping[str, Any]) -> fair.Arm:
        if not isinstance(settings, Mapping):
            raise UserError(f"hydra.sweeper.arms.{name}={settings}: must be a mapping of keys to values and ranges")
        own = dict(settings)
        words = {word: own.pop(word, None) for word in WORDS}
        shared = {} if words["runs_of"] or words["follows"] else self.params
        fixed, space = {}, {}
        for key, value in {**shared, **own}.items():
            if key in self.typed:
                continue
            found = (
                None if "product(" in str(value) else self._range(name, self.parser.parse_override(f"{key}={value}"))
            )
            if found is None:
                fixed[key] = str(value)
            else:
                space[key] = found
        return fair.Arm(
            name,
            fixed,
            space,
            tuple(_words(words["weights"]) or ("slow",)),
            words["runs_of"],
            words["follows"],
            tuple(_words(words["without"])),
        )

    @staticmethod
    def _range(arm: str, override: Override) -> fair.Range | fair.Options | None:
        """What a key is tuned over; None of one value."""
        refuse_empty([override])
        value = override.value()
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            scale = next(iter(value.tags or ()), "linear")
            low, high, whole = value.start, value.end, type(value.start) is int
            top = 1.0 if scale == "log_complement" else float("inf")
            if scale not in fair.SCALES or not low < high < top or (scale == "log" and low <= 0):
                raise UserError(
                    f"hydra.sweeper.arms.{arm}: {override.input_line}: must be interval(low, high) with low < high, "
                    f"tagged {' or '.join(fair.SCALES[1:])} if at all (log: low > 0; log_complement: high < 1)"
                )
            return fair.Range(float(low), float(high), scale, whole)
        if override.is_discrete_sweep():
            return fair.Options(tuple(override.sweep_string_iterator()))
        return None

    def _choosing(self) -> list[tuple[str, fair.Arm]]:
        return [(name, arm) for name, arm in self.arms.items() if not arm.follows]

    def _readers(self, name: str) -> list[tuple[str, fair.Arm]]:
        """The arms that choose among the trials of one."""
        return [(other, arm) for other, arm in self._choosing() if name in (other, arm.runs_of)]

    def _trials(self, arm: fair.Arm) -> list[fair.Trial]:
        made = [fair.Trial(i, settings) for i, settings in enumerate(arm.trials(self.count, self.sobol_seed))]
        return list({tuple(sorted(trial.settings.items())): trial for trial in reversed(made)}.values())[::-1]

    def _say_count(self, stage: str, what: str) -> None:
        log.info("%-13s  %s, on %d seeds: known when the runs before are made", stage, what, len(self.seeds[stage]))

    def _tune(self, stage: str, trials: Mapping[str, Sequence[fair.Trial]], seeds: Sequence[int]) -> int | None:
        """Make the runs and enter what they came to; the metric's sign. None where they are only listed."""
        wanted = [(name, trial, seed) for name, own in trials.items() for trial in own for seed in seeds]
        log.info(
            "%-13s  %d runs: %d settings of %d arms, on %d seeds",
            stage,
            len(wanted),
            sum(map(len, trials.values())),
            len(trials),
            len(seeds),
        )
        jobs = self._made(stage, fair.TUNING, [(trial.settings, seed) for _, trial, seed in wanted])
        if isinstance(self.launcher, ListLauncher) and not all(_is_finished(job) for job in jobs):
            return None
        for (name, trial, seed), job in zip(wanted, jobs, strict=True):
            assert job.path is not None
            kinds = dict.fromkeys(kind for _, arm in self._readers(name) for kind in arm.weights)
            values, self.metric = fair.validation(job.path, list(kinds))
            for kind, value in values.items():
                trial.values.setdefault(kind, {})[seed] = value
        return self.metric.sign

    def _made(self, stage: str, folder: str, wanted: Sequence[tuple[Mapping[str, str], int]]) -> list[PlannedRun]:
        """A run for each of these, in their order; those that are one run are made once."""
        batch = [self._overrides(settings, folder, seed) for settings, seed in wanted]
        distinct = {tuple(sorted(overrides)): overrides for overrides in batch}
        for job in self._compose(list(distinct.values())[:1]):
            if job.refused is not None:
                raise job.refused
            assert job.config is not None
            require_validation(job.config.dataset.split.val_fraction, "hydra/sweeper=fair:")
        made = dict(zip(distinct, self.make(list(distinct.values()), stage), strict=True))
        return [made[tuple(sorted(overrides))] for overrides in batch]

    def _overrides(self, settings: Mapping[str, str], folder: str, seed: int) -> list[str]:
        last = {key: str(value) for key, value in self.final_params.items()} if folder == fair.FINAL else {}
        given = [f"{key}={value}" for key, value in {**settings, **last}.items() if key not in self.typed]
        return [*given, *self.typed.values(), f"study={self.study}/{folder}", f"seed={seed}"]

    def _finish(self, trials: dict[str, list[fair.Trial]], best: dict[str, list[fair.Trial]], sign: int) -> Any:
        """Choose by all tuning seeds, say and write what was chosen, and make the runs on fresh seeds."""
        chosen: dict[str, tuple[int | None, dict[str, str], str]] = {}
        for name, arm in self._choosing():
            if name in best:
                trial, weights = fair.ranked(arm, best[name], sign)[0]
                chosen[name] = (trial.number, trial.settings, weights)
                log.info("%s", self._choice_text(arm, best[name], sign))
            else:
                chosen[name] = (None, trials[arm.runs_of or name][0].settings, arm.weights[0])
        for name, arm in self.arms.items():
            if arm.follows:
                _, settings, _ = chosen[arm.follows]
                chosen[name] = (None, arm.following(settings), arm.weights[0])
        wanted = [(settings, seed) for _, settings, _ in chosen.values() for seed in self.seeds["final"]]
        if self.until != "final":
            return []
        count = len({(*sorted(settings.items()), seed) for settings, seed in wanted})
        log.info("%-13s  %d runs: %d arms on %d seeds", "final", count, len(chosen), len(self.seeds["final"]))
        firsts = self._compose(
            [self._overrides(settings, fair.FINAL, self.seeds["final"][0]) for _, settings, _ in chosen.values()]
        )
        for job in firsts:
            if job.refused is not None:
                raise job.refused
        if not isinstance(self.launcher, ListLauncher):
            self._write(trials, chosen, firsts, sign)
        return [[job.result for job in self._made("final", fair.FINAL, wanted)]]

    def _choice_text(self, arm: fair.Arm, best: Sequence[fair.Trial], sign: int) -> str:
        order = fair.ranked(arm, best, sign)

        def said(trial: fair.Trial, weights: str) -> str:
            diverged, value = trial.rank(weights, sign)
            lost = f", {diverged} of {len(trial.values[weights])} diverged" if diverged else ""
            kind = f", {weights} weights" if len(arm.weights) > 1 else ""
            return f"trial {trial.number}{kind}: {self.metric.said(-sign * value)}{lost}"

        (trial, weights), *others = order
        owner = self.arms[arm.runs_of or arm.name]
        shown = "".join(f"  {key}={trial.settings[key]}" for key in owner.space)
        lines = [f"{'chosen':<13}  {arm.name}: {said(trial, weights)}{shown}"]
        if others:
            lines.append(f"{'':<13}  next: {said(*others[0])}")
        lines += [f"{'':<13}  {text}" for text in fair.at_the_edge(owner, trial.settings)]
        return "\n".join(lines)

    def _write(
        self,
        trials: Mapping[str, Sequence[fair.Trial]],
        chosen: Mapping[str, tuple[int | None, Mapping[str, str], str]],
        firsts: Sequence[PlannedRun],
        sign: int,
    ) -> None:
        described = {
            name: fair.described(arm, trials[arm.runs_of or name] if chosen[name][0] is not None else [], sign)
            for name, arm in self.arms.items()
        }
        made = {}
        for (name, (number, settings, weights)), job in zip(chosen.items(), firsts, strict=True):
            assert job.path is not None
            owner = self.arms[self.arms[name].runs_of or name]
            described[name]["edges"] = owner.edges(settings)
            place = job.path.parent
            made[name] = fair.Chosen(
                number, settings, weights, f"{fair.FINAL}/{place.name}", place.name.rpartition("-")[2]
            )
        folder = firsts[0].path.parent.parent.parent  # type: ignore[union-attr]
        folder.mkdir(parents=True, exist_ok=True)
        if not self.metric.name:  # no run has told it
            with importing():
                self.metric = build_source(firsts[0].config.dataset).objective.metric  # type: ignore[union-attr]
        found = fair.Comparison(self.metric, self.seeds, self.contrasts, described, made)
        with files.replacing(folder / fair.FILE) as file:
            json.dump(found.plain(), file, indent=1)


def _is_finished(job: PlannedRun) -> bool:
    return job.path is not None and (job.path / files.SUMMARY).exists()


def _pair(text: Any) -> tuple[str, str]:
    first, minus, second = str(text).partition(" - ")
    if not minus:
        raise UserError(f"hydra.sweeper: contrast {text}: must be two arms, as nested - lookahead")
    return first.strip(), second.strip()


def _words(text: Any) -> list[str]:
    """``a, b`` or a list."""
    if text is None:
        return []
    return [part.strip() for part in text.split(",")] if isinstance(text, str) else [str(part) for part in text]
