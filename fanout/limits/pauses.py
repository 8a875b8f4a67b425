"""Pauses that an upstream has requested, which the clock alone ends."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Hold:
    """The reason why no call of a model (`None`: of any) starts now."""

    model: str | None
    seconds: float
    reason: str


class Pauses:
    """Pauses under way, by model; `None` stands for the whole account."""

    def __init__(self) -> None:
        self.ends: dict[str | None, float] = {}
        """On `time.monotonic`."""
        self._reasons: dict[str | None, str] = {}

    def add(self, now: float, model: str | None, seconds: float, reason: str) -> float:
        """Pause a model for `seconds`, at most a minute; a longer pause that is under way stays. Return its end."""
        end = max(self.ends.get(model, 0.0), now + min(seconds, MAX_PAUSE_S))
        # Callers choose the names of models: pauses that are over and never looked up again must not pile up.
        self.ends = {name: other for name, other in self.ends.items() if other > now} | {model: end}
        self._reasons = {name: self._reasons.get(name, reason) for name in self.ends} | {model: reason}
        return end

    def compute_wait_s(self, now: float, model: str | None) -> float:
        """Return the rest of the pause of exactly this entry; 0 where there is none."""
        end = self.ends.get(model)
        if end is None:
            return 0.0
        if end <= now:
            # Forgotten, so that `ends` is empty again and no call looks a pause up.
            del self.ends[model]
            return 0.0
        return end - now

    def list_holds(self, now: float) -> list[Hold]:
        """Return the pauses that are not over."""
        return [Hold(model, end - now, self._reasons[model]) for model, end in self.ends.items() if end > now]
