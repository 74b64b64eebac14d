"""What asking has cost, and whether one more request may be sent: never more than the recipe allows, under way included."""

from dataclasses import dataclass

from ...config.endpoint import Budget, Price


@dataclass(frozen=True)
class Tokens:
    """Of a request: of its prompt, and of its answer."""

    input: int = 0
    output: int = 0


@dataclass(frozen=True)
class Spent:
    """Requests, and tokens as servers count them (where they do not: four characters each)."""

    requests: int = 0
    input: int = 0
    output: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.requests + other.requests, self.input + other.input, self.output + other.output)

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.requests - other.requests, self.input - other.input, self.output - other.output)

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def money(self, price: Price) -> float:
        in_tokens = self.input * price.million_input_tokens + self.output * price.million_output_tokens
        return self.requests * price.request + in_tokens / 1e6

    def within(self, budget: Budget, price: Price) -> bool:
        allowed = (budget.requests, self.requests), (budget.tokens, self.tokens), (budget.money, self.money(price))
        return all(most is None or used <= most * (1 + 1e-9) for most, used in allowed)

    def told(self, price: Price, budget: Budget) -> str:
        """`400 requests (of 400), 12,345 tokens, 0.31 by its prices`."""
        of = [f" (of {most:,})" if most is not None else "" for most in (budget.requests, budget.tokens, budget.money)]
        parts = [f"{self.requests:,} requests{of[0]}", f"{self.tokens:,} tokens{of[1]}"]
        return ", ".join(parts + [f"{self.money(price):,.4g}{of[2]} by its prices"] * (price != Price()))


def one(tokens: Tokens) -> Spent:
    """Of one request."""
    return Spent(1, tokens.input, tokens.output)


class Purse:
    """Of one teacher. What is under way is held to cost what was expected, or as much as the dearest request so far.

    Where tokens are counted, one request alone goes first: how far off expectations are is known when it has come.
    """

    def __init__(self, budget: Budget, price: Price, spent: Spent) -> None:
        self.budget, self.price, self.spent = budget, price, spent
        self.under_way = Spent()
        self._dearest: Tokens | None = None
        self._counts_tokens = budget.tokens is not None or budget.money is not None

    def has(self, expected: Tokens) -> bool:
        if self._counts_tokens and self._dearest is None and self.under_way.requests:
            return False
        return (self.spent + self.under_way + one(self.held(expected))).within(self.budget, self.price)

    def held(self, expected: Tokens) -> Tokens:
        dearest = self._dearest or Tokens()
        return Tokens(max(expected.input, dearest.input), max(expected.output, dearest.output))

    def take(self, held: Tokens) -> None:
        self.under_way += one(held)

    def settle(self, held: Tokens, used: Tokens) -> None:
        self.under_way -= one(held)
        self.spent += one(used)
        if used != Tokens():
            self._dearest = self.held(used)
