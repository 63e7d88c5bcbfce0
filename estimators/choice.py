"""Choice: one estimator at one rate, read once, with what its users have to know of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, NamedTuple

from torch import Tensor

from sketchvar.estimators.catalog import tell
from sketchvar.estimators.combine import change_innermost, innermost
from sketchvar.estimators.estimator import Estimator
from sketchvar.estimators.spelling import EXAMPLES, parse_untold, spell, takes_rate


class Flags(NamedTuple):
    """What every table says of an estimator in columns of these names."""

    oracle: bool  # is told of Y, which no layer can know
    biased: bool  # its variance is a mean squared error, and does not average out over steps
    takes_rate: bool  # else it comes once, at rate 1


@dataclass(frozen=True)
class Choice:
    """One estimator at one rate. ``name`` is its spelling without the rate, ``rate`` 1 where it
    takes none; choices are equal if both are.

    The ``estimator`` of an oracle has not been told of Y: ``told`` gives the one for a layer.
    """

    name: str
    rate: float
    estimator: Estimator = field(compare=False, repr=False)

    @classmethod
    def of(cls, estimator: Estimator) -> "Choice":
        """Choose this estimator; one that the catalog does not have is called by its class."""
        return cls(name_of(estimator), getattr(innermost(estimator), "rate", 1.0), estimator)

    @property
    def flags(self) -> Flags:
        """What tables say of it."""
        traits = self.estimator.traits
        return Flags(traits.oracle, traits.biased, hasattr(innermost(self.estimator), "rate"))

    @property
    def oracle(self) -> bool:
        """Whether it has to be told of Y."""
        return self.flags.oracle

    @property
    def biased(self) -> bool:
        """Whether E Ĝ ≠ G."""
        return self.flags.biased

    @property
    def takes_rate(self) -> bool:
        """Whether it has a rate."""
        return self.flags.takes_rate

    @property
    def needs_pair(self) -> bool:
        """Whether its closed form needs X and Y themselves."""
        return self.estimator.traits.needs_pair

    @property
    def no_closed_form(self) -> bool:
        """Whether its variance has to be measured by draws."""
        return self.estimator.traits.no_closed_form

    def __str__(self) -> str:
        """Its spelling with the rate, if it has one."""
        try:
            return spell(self.estimator)
        except (ValueError, TypeError):  # not of the catalog, or no dataclass
            return f"{self.name} at rate {self.rate:g}" if self.takes_rate else self.name

    def told(self, y_sq: Tensor | None = None) -> Estimator:
        """The estimator for one layer: an oracle told the squared row norms ``y_sq`` (n) of its Y.

        Raises ValueError for an oracle that is told nothing.
        """
        return tell(self.estimator, y_sq)

    def at(self, rate: float) -> "Choice":
        """The same estimator at another rate, or as it is where it takes none."""
        if not self.takes_rate:
            return self
        return replace(self, rate=rate, estimator=change_rate(self.estimator, rate))


One = str | Estimator | Choice
Estimators = One | Iterable[One]
Rates = float | int | Iterable[float]


def choose(text: str, rate: float | None = None) -> Choice:
    """Read one spelling, as ``parse`` does, into a choice; an oracle is told of Y later.

    >>> choose("centered(countsketch):0.1")
    Choice(name='centered(countsketch)', rate=0.1)
    """
    return Choice.of(parse_untold(text, rate))


def choices(estimators: Estimators, rates: Rates = ()) -> list[Choice]:
    """Read every estimator at all ``rates``, once: spellings or ``Estimator`` objects, or a single
    one. What brings its own rate, as ``gaussian:0.1`` or an object, comes at that one, and a choice
    as it is.

    >>> choices(["countsketch", "rounding:2"], [0.5, 0.1])  # doctest: +NORMALIZE_WHITESPACE
    [Choice(name='countsketch', rate=0.5), Choice(name='countsketch', rate=0.1),
     Choice(name='rounding:2', rate=1.0)]

    Raises ValueError for a spelling that cannot be read, with the nearest name, for a rate outside
    (0, 1] and for one that is missing; TypeError for anything else than spellings and estimators.
    """
    given = as_list(rates)
    for rate in given:
        if not isinstance(rate, Real) or not 0 < float(rate) <= 1:
            raise ValueError(
                f"rates are fractions of X to keep, 0 < rate <= 1, got rate={rate}; write 0.1 for"
                " 10 %"
            )
    found = [one for each in as_list(estimators) for one in read_at(each, given)]
    return list(dict.fromkeys(found))


def as_list(one_or_more: Any) -> list[Any]:
    """Make a list of one thing, or of several."""
    several = isinstance(one_or_more, Iterable) and not isinstance(one_or_more, str)
    return list(one_or_more) if several else [one_or_more]


def read_at(estimator: Any, rates: list[float]) -> list[Choice]:
    if not isinstance(estimator, One):
        raise TypeError(
            f"an estimator is a spelling, as in {EXAMPLES}, or an Estimator, as in"
            f" CountSketch(0.1); got {estimator!r}"
        )
    if isinstance(estimator, Estimator):
        return [Choice.of(estimator)]
    if isinstance(estimator, Choice):
        return [estimator]
    if takes_rate(estimator) and rates:
        return [choose(estimator, rate) for rate in rates]
    return [choose(estimator)]


def change_rate(estimator: Estimator, rate: float) -> Estimator:
    """Change the rate of an estimator that takes one, also inside ``Centered`` or ``Then``."""
    return change_innermost(estimator, lambda inner: replace(inner, rate=rate))  # type: ignore[type-var]


def name_of(estimator: Estimator) -> str:
    """Its spelling without a rate, or the class and fields of one that the catalog does not
    have.
    """
    try:
        return spell(estimator, rate=False)
    except (ValueError, TypeError):  # not of the catalog, or no dataclass
        own = ", ".join(
            f"{n}={v}" for n, v in vars(estimator).items() if n not in ("rate", "traits")
        )
        return type(estimator).__name__ + (f"({own})" if own else "")
