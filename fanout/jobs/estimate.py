"""Estimate of a job before anything is sent: calls, tokens, cost, and the time that the configured limits need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from fanout.config.providers_file import LimitsRow
from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call
from fanout.core.usage import Usage, sum_complete
from fanout.dispatch.fusing import preview
from fanout.dispatch.fusion_plan import list_member_places
from fanout.jobs.budget import Price, max_input_tokens

BYTES_PER_TOKEN = 4  # of English text, roughly
GUESSED_OUTPUT_TOKENS = 256
"""Length of an answer, where the call sets none."""


@dataclass(slots=True)
class ModelEstimate:
    """Share of one model. Tokens are estimates, and so is their cost."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    """As many as its calls allow, or a guess."""
    guessed: bool = False
    """Some calls set no length, so the tokens of their answers are a guess."""
    cost_usd: float | None = 0.0
    """`None`: the price is not known."""


@dataclass(slots=True)
class AccountEstimate:
    """Share of one account."""

    calls: int = 0
    tokens: int = 0

    def min_duration_s(self, limits: LimitsRow | None) -> float | None:
        """Return the seconds that its limits need at least; `None`: there are none."""
        if limits is None:
            return None
        bounds = ((self.calls, limits.requests_per_minute), (self.tokens, limits.tokens_per_minute))
        # The allowance of the first minute may start at once.
        waits = [max(number - per_minute, 0) / per_minute * 60 for number, per_minute in bounds if per_minute]
        return max(waits, default=None)


@dataclass(slots=True)
class JobEstimate:
    """Estimate of a whole job."""

    items: int = 0
    calls: int = 0
    models: dict[str, ModelEstimate] = field(default_factory=dict)
    accounts: dict[str, AccountEstimate] = field(default_factory=dict)
    not_configured: dict[str, str] = field(default_factory=dict)
    """Models that lack a variable, with the sentence that names it."""

    def add(self, calls: Sequence[Call], price: Price, in_batches: Collection[str] = ()) -> None:
        """Add the calls of one item; those to the providers `in_batches` are not bound by the limits of single calls."""
        self.items += 1
        lengths = {(call.entry, call.prompt_index, call.sample): _guess_length(call) for call in calls}
        for call in calls:
            self.calls += 1
            sampling = call.query.sampling
            read = max_input_tokens(preview(call) if call.fusion else call.query) // BYTES_PER_TOKEN
            read += sum(lengths[place] for place in list_member_places(call))
            wrote = _guess_length(call) * sampling.generated_answers
            model = self.models.setdefault(call.target.label, ModelEstimate())
            model.calls += 1
            if call.refusal:
                self.not_configured[call.target.label] = call.refusal.message
            model.input_tokens += read
            model.output_tokens += wrote
            model.guessed = model.guessed or sampling.max_tokens is None
            cost = price(call, Usage(input_tokens=read, output_tokens=wrote))
            model.cost_usd = sum_complete((model.cost_usd, cost.usd if cost else None))
            if call.target.provider in in_batches:
                continue
            account = self.accounts.setdefault(call.target.provider or "", AccountEstimate())
            account.calls += 1
            account.tokens += read + wrote

    @property
    def cost_usd(self) -> float | None:
        """`None` where the price of any model is not known."""
        return sum_complete(model.cost_usd for model in self.models.values())

    @property
    def cost_unknown(self) -> Sequence[str]:
        """Models whose price is not known."""
        return [name for name, model in self.models.items() if model.cost_usd is None]

    def min_duration_s(self, providers: Mapping[str, ProviderSettings]) -> float | None:
        """Return the seconds that the limits of the slowest account need; `None` where no account has limits."""
        waits = [
            account.min_duration_s(providers[name].row.limits if name in providers else None)
            for name, account in self.accounts.items()
        ]
        return max((wait for wait in waits if wait is not None), default=None)


def _guess_length(call: Call) -> int:
    """Return the tokens of one answer: as many as the call allows, or a guess."""
    allowed = call.query.sampling.max_tokens
    return GUESSED_OUTPUT_TOKENS if allowed is None else allowed
