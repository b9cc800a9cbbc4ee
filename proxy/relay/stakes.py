"""What an attempt has to win or lose: limits, a credential, the standing of its target.

Lives here: `Stake`, `take_stake`. May not live here: limits (taking), what is known of targets and credentials, and
which failure counts (policy).
How it works: a stake is taken before the attempt and told exactly once how it went. An answer that begins well tells it
at its first event already: it may go on for minutes, and a breaker's probe must not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Provider
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.credentials import Credentials
from proxy.policy.health import TargetHealth
from proxy.policy.limits import Hold, Refusal
from proxy.policy.plan import Target
from proxy.policy.retry import Verdict

if TYPE_CHECKING:
    from proxy.relay.relay import Relay
    from proxy.relay.taking import Taking


_SAYS_NOTHING: Final = (Kind.ERROR_EVENT, Kind.CREDENTIAL_REFUSED, Kind.DIFFERS)  # of a target, by itself


_LIMITED: Final = 1.0  # seconds that a credential is left alone after a 429 that says nothing
Notice = Callable[..., None]  # level, sentence, and by name what programs may pick out of it


class Stake:
    """`common` and `own` were taken of limits (taking). `number` is that of `secret` among its provider's."""

    __slots__ = (
        "common", "credentials", "is_concerned", "number", "own", "secret", "_health", "_is_probe", "_is_told",
        "_model", "_notice", "_provider",
    )  # fmt: skip

    def __init__(self, provider: str, model: str, notice: Notice) -> None:
        self.common: Hold | None = None
        self.own: Hold | None = None
        self.secret: Secret | None = None
        self.number = 0
        self.is_concerned = False  # somebody wants to know that it went well; that it did not is always told
        self.credentials: Credentials | None = None  # None: the provider has none of ours
        self._provider = provider
        self._model = model
        self._notice = notice
        self._health: TargetHealth | None = None  # None: without an alias
        self._is_probe = False
        self._is_told = False

    def join(self, health: TargetHealth, now: float) -> None:
        self._health = health
        self.is_concerned = True
        self._is_probe = health.begin(now)

    def first_event(self, seconds: float, now: float, is_stream: bool = True) -> None:
        """An answer that is no error has begun, `seconds` after the attempt did."""
        if self._health is not None:
            self._health.first_event(seconds, now, self._is_probe, is_stream)
            if self._is_probe:
                self._is_probe = False  # what comes later is no news of it
                self._tell("info", "the target {} is back")
        if self.credentials is not None:
            self.credentials.worked(self.number, self._model, now)

    def ended(self, now: float, status: int, failure: Failure | None, verdict: Verdict | None) -> None:
        """The attempt has ended so. `verdict`: on what its provider said or did, if that was asked for."""
        if self._is_told:
            return
        self._is_told = True
        wait = None
        is_good: bool | None = True  # an error status is an answer, too, unless the verdict says otherwise
        if failure is not None and failure.kind is not Kind.ERROR_STATUS:
            is_good = None if failure.side is not Side.UPSTREAM or failure.kind in _SAYS_NOTHING else False
        if verdict is not None:
            is_good = False if verdict.is_fault else is_good
            wait = verdict.wait if status in (429, 503) else None
        if self.credentials is not None:
            if failure is not None and failure.kind is Kind.CREDENTIAL_REFUSED:
                is_good = None
                if self.credentials.refused(self.number, status, self._model, now):
                    self._tell("warn", "the credential for {} was refused, and is left out for a while", status=status)
            elif status == 429 and self.credentials.count > 1 and (verdict is None or verdict.is_fault):
                self.credentials.limited(self.number, _LIMITED if wait is None else wait, now)
                if self.credentials.has_unlimited(now):
                    is_good = wait = None  # the target itself may be asked with others
            else:  # what began well has told so (first_event)
                self.credentials.forget(self.number, self._model)
        if self._health is not None:
            was_closed = self._health.breaker.is_closed
            self._health.end(now, self._is_probe, is_good, wait)
            if was_closed and not self._health.breaker.is_closed:
                seconds = round(self._health.breaker.retry_in(now), 1)
                why = "keeps failing, and" if wait is None else "asked for a pause, and"
                self._tell("warn", f"the target {{}} {why} is left alone", seconds=seconds)

    def _tell(self, level: str, message: str, **more: object) -> None:
        if self.secret is not None and level == "warn":
            more["credential"] = f"#{self.secret.fingerprint}"
        target = f"{self._provider}/{self._model}" if self._model else self._provider
        self._notice(level, message.format(target), **more)

    def holds(self) -> list[Hold]:
        """What was taken of limits, to be settled: once."""
        found = [hold for hold in (self.common, self.own) if hold is not None]
        self.common = self.own = None
        return found

    @property
    def is_watched(self) -> bool:
        """Whether a breaker counts how it ends."""
        return self._health is not None

    @property
    def keys(self) -> int:
        """How many credentials its provider has."""
        return 0 if self.credentials is None else self.credentials.count


def take_stake(
    taking: Taking | None,
    relay: Relay,
    passthrough: bool,
    target: Target,
    is_alias: bool,
    now: float,
    free: Stake | None = None,
) -> Stake | Refusal | Failure:
    """For an attempt at `target`; `free`: of one that failed and cost nothing. Without an alias nobody could answer in
    its place, so it is asked whatever is known of its credential."""
    model, provider = target.model or "", target.provider
    stake = Stake(provider.name, model, relay.notice)
    if provider.credential is not None and not passthrough:
        stake.credentials = credentials = relay.credentials_of(provider)
        number = credentials.pick(now, model)
        if number is None and is_alias:
            return _no_credential(provider)
        stake.number = number or 0
        stake.is_concerned = credentials.is_troubled
        stake.secret = provider.credentials[stake.number]
    if taking is not None:
        found = taking.attempt(target, free)
        if isinstance(found, Refusal | Failure):
            if stake.credentials is not None:
                stake.credentials.forget(stake.number, model)
            return found
        stake.common, stake.own = found
    if is_alias:
        stake.join(relay.health.of((provider.name, model)), now)
    return stake


def _no_credential(provider: Provider) -> Failure:
    detail = f"the provider {provider.name} has refused this proxy's credential, and is asked again in a while"
    return Failure(Side.UPSTREAM, Phase.CONNECT, Kind.CREDENTIAL_REFUSED, detail)
