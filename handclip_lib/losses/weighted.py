"""Several loss terms by name, each with a weight."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from handclip_lib.errors import ConfigError


class WeightedLoss:
    """A weighted sum of named terms; a term of weight 0 is never computed.

    Attributes:
        weights: Of the terms that count, all more than 0.
    """

    def __init__(self, terms: Mapping[str, Callable[..., Tensor]], weights: Mapping[str, float]):
        """Check the weights.

        Args:
            terms: Functions of the same keyword arguments, each a scalar.
            weights: 0 or more, for each term.

        Raises:
            ConfigError: A term is unknown, a weight negative, or all are zero.
        """
        faults = [f"{name}: no such loss; choose from {', '.join(terms)}" for name in weights if name not in terms]
        faults += [f"weight of {name} is {value}: 0 or more" for name, value in weights.items() if not value >= 0]
        self.weights = {name: weights.get(name, 0.0) for name in terms if weights.get(name, 0.0) > 0}
        if not self.weights and not faults:
            faults.append("every loss has weight 0: nothing would be learnt")
        if faults:
            raise ConfigError("; ".join(faults))
        self._terms = terms

    def __call__(self, **arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum and every term by name, unweighted."""
        found = {name: self._terms[name](**arguments) for name in self.weights}
        parts = [self.weights[name] * value for name, value in found.items()]
        return sum(parts[1:], start=parts[0]), found
