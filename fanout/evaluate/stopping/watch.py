"""Watch on a running job: looks at the complete prefix of its items, drops models that lose, and tells when all is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil
from typing import Literal

import numpy as np

from fanout.evaluate.statistics.estimates import Floats, join_names
from fanout.evaluate.statistics.sequential import Decision, StoppingRule, decide
from fanout.jobs.stopping import LOOKAHEAD_ITEMS, StoppingPlan, StoppingStep, shuffle_items
from fanout.store.jobs.records import FailurePolicy, Unit, UnitScore

LOOK_EVERY = 1.02
"""Between looks the prefix grows by a fiftieth, and by one item at least: e-values hold at whichever looks are taken."""
FUTILITY_EVERY = 8
"""Items between two looks whether the rest can still decide: at fixed places, so that a resumed job finds the same."""
Pair = tuple[int, int]
Outcome = Literal["difference", "equivalence", "futility", "budget"]


class JobWatch:
    """The watch on one job. What it decides depends on the ends of units in the job's order alone, not on when they came."""

    def __init__(
        self,
        plan: StoppingPlan,
        items: int,
        models: Mapping[int, str],
        repeats: int,
        policy: FailurePolicy,
        scorer: int,
    ) -> None:
        """Keep what the job declares.

        Args:
            plan: of the job.
            items: of the job.
            models: names by entry.
            repeats: units of each item and model.
            policy: a failed unit counts 0, or its item is left out.
            scorer: number of the metric's scorer.
        """
        self.plan, self.models, self._repeats, self._policy, self.scorer = plan, dict(models), repeats, policy, scorer
        self.order = shuffle_items(items, plan.seed)
        self.budget = min(items, plan.max_items or items)
        self._places = np.empty(items, dtype=np.int64)
        self._places[np.asarray(self.order, dtype=np.int64)] = np.arange(items)
        shape = (max(self.models, default=0) + 1, self.budget)
        self._sums, self._counts, self._ended = np.zeros(shape), np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        self._known: dict[Pair, set[int]] = {}
        """Repeats that have ended, by entry and place, where not all have."""
        self._prefixes = dict.fromkeys(self.models, 0)
        """By entry, the items that have ended without a gap."""
        self.live = list(self.models)
        self.decided: dict[Pair, Decision] = {}
        pairs = max(len(self.models) * (len(self.models) - 1) // 2, 1)
        # Each pair has its share of alpha, so that the chance of any false alarm in the job stays below alpha.
        self.rule = StoppingRule(plan.alpha / pairs, plan.margin, self.budget)
        self.looked = 0
        self.final: StoppingStep | None = None

    @property
    def prefix(self) -> int:
        """Items that all models still running have completed, in the job's order."""
        return min((self.count_complete(entry) for entry in self.live), default=0)

    def count_complete(self, entry: int) -> int:
        """Return the items that a model has completed without a gap, in the job's order."""
        count = self._prefixes[entry]
        # Continued from where it stood: counted from 0 each time, a job of a million items would take their square.
        while count < self.budget and self._ended[entry, count] >= self._repeats:
            count += 1
        self._prefixes[entry] = count
        return count

    def reach(self, workers: int) -> int:
        return min(self.prefix + LOOKAHEAD_ITEMS * workers, self.budget)

    @property
    def is_due(self) -> bool:
        return self.final is None and self.prefix >= self._next_look

    @property
    def _next_look(self) -> int:
        return min(max(self.looked + 1, ceil(self.looked * LOOK_EVERY)), self.budget)

    def record(self, unit: Unit, scores: Sequence[UnitScore], *, answered: bool) -> None:
        place = int(self._places[unit.item])
        # Beyond the budget: evidence that the plan has not paid for.
        if place >= self.budget or unit.entry not in self.models or self._is_known(unit.entry, place, unit.repeat):
            return
        value = next((score.value for score in scores if score.scorer == self.scorer), None)
        if not answered and self._policy == "score_zero":
            value = 0.0
        if value is not None:
            self._sums[unit.entry, place] += value
            self._counts[unit.entry, place] += 1
        # Last: another thread may look, and reads only what has ended.
        self._ended[unit.entry, place] += 1

    def _is_known(self, entry: int, place: int, repeat: int) -> bool:
        """Return whether the end of a unit was added before; note that it is now."""
        if self._ended[entry, place] >= self._repeats:
            return True
        known = self._known.setdefault((entry, place), set())
        is_known = repeat in known
        known.add(repeat)
        if len(known) >= self._repeats:
            del self._known[entry, place]
        return is_known

    def look(self) -> Sequence[StoppingStep]:
        # Every look that was due, in order: a job that is resumed decides as if it had never been cut off.
        steps: list[StoppingStep] = []
        while self.is_due:
            self.looked = self._next_look
            steps += self._look_at(self.looked)
        return steps

    def _look_at(self, prefix: int) -> Sequence[StoppingStep]:
        steps = []
        for a, b in combinations(self.live, 2):
            if (a, b) not in self.decided and (decision := self._decide(a, b, prefix)).state != "undecided":
                self.decided[a, b] = decision
        for (a, b), decision in self.decided.items():
            # A loser's pairs are settled with it: it needs no more calls.
            if decision.state == "difference" and a in self.live and b in self.live and decision.mean:
                winner, loser = (a, b) if decision.mean > 0 else (b, a)
                self.live.remove(loser)
                sentence = f"{self.models[winner]} is better than {self.models[loser]}: {decision.sentence}"
                steps.append(StoppingStep(sentence, dropped_entry=loser))
        if self._is_over(prefix):
            self.final = StoppingStep(self._conclude(prefix), is_final=True)
            steps.append(self.final)
        return steps

    def _decide(self, a: int, b: int, prefix: int) -> Decision:
        differences = self.get_differences(a, b, prefix)
        rest = self.budget - prefix
        # A budget in items that count: those without a score in either model are never looked at.
        rule = StoppingRule(self.rule.alpha, self.rule.margin, differences.size + rest)
        return decide(differences, rule, checks_futility=prefix % FUTILITY_EVERY == 0)

    def get_differences(self, a: int, b: int, prefix: int) -> Floats:
        """Return A − B of the first items that both have a score of."""
        counts = self._counts[:, :prefix]
        both = (counts[a] > 0) & (counts[b] > 0)
        means = [self._sums[entry, :prefix][both] / counts[entry][both] for entry in (a, b)]
        return np.asarray(means[0] - means[1])

    def _is_over(self, prefix: int) -> bool:
        pairs = list(combinations(self.live, 2))
        return prefix >= self.budget or all(pair in self.decided for pair in pairs)

    def _conclude(self, prefix: int) -> str:
        names = [self.models[entry] for entry in self.live]
        start = f"decided by {self.plan.metric} after {prefix:,} of {len(self.order):,} items: "
        if len(names) == 1:
            return f"{start}{names[0]} is better than every other model"
        pairs = [(pair, self.decided.get(pair)) for pair in combinations(self.live, 2)]
        states = {decision.state if decision else "budget" for _, decision in pairs}
        if states == {"equivalence"}:
            return f"{start}{join_names(names)} are equal within ±{self.plan.margin:g}"
        reason = "the items that remain cannot decide" if states <= {"equivalence", "futility"} else "the budget is used up"
        return f"undecided by {self.plan.metric} after {prefix:,} items: {join_names(names)} are not separated, {reason}"
