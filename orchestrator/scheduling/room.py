"""What is free on each node of a cluster, GPU by GPU. Knows nothing of who takes it, or when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

Node = Mapping[str, float]
"""Resources of one node by Ray's names."""
Request = Mapping[str, float]
"""Of one worker on one node, by Ray's names. Nothing in it is 0."""
CRUMB = 1e-6
"""Less than Ray tells apart."""


@dataclass(frozen=True)
class Part:
    """`num` workers or replicas with `request` each, which begin together."""

    num: int
    request: Request


@dataclass(frozen=True)
class Seat:
    """The place of one worker: a node, and the shares of its GPUs by their numbers."""

    node: str
    request: Request
    gpus: Mapping[int, float]


class Room:
    """Free resources by the nodes' names. A share of a GPU lies on one GPU: two of 0.6 need two."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.free = {
            name: {what: amount for what, amount in node.items() if what != "GPU"} for name, node in nodes.items()
        }
        self.gpus = {name: [1.0] * int(node.get("GPU", 0) + CRUMB) for name, node in nodes.items()}

    def copy(self) -> Self:
        other = type(self)({})
        other.free = {name: dict(free) for name, free in self.free.items()}
        other.gpus = {name: [*gpus] for name, gpus in self.gpus.items()}
        return other

    def least(self, other: "Room") -> Self:
        """What is free in both; `other` has the same nodes."""
        both = self.copy()
        for name, free in both.free.items():
            for what in free:
                free[what] = min(free[what], other.free[name][what])
            both.gpus[name] = [min(pair) for pair in zip(self.gpus[name], other.gpus[name], strict=True)]
        return both

    def seats(self, gang: Sequence[Part]) -> list[Seat] | None:
        """Places for all workers of all parts, in their order, or None: all or nothing. Takes none of it.

        The largest requests are placed first, each on a node of the same gang where there is room, else on the fullest node
        that holds it; one that asks for no GPU goes to a node without, if it can.
        """
        if sum(part.num for part in gang) == 1:  # nothing of it is in the way of the rest
            alone = self._seat(next(part.request for part in gang if part.num), set())
            return None if alone is None else [alone]
        left, found, used = self.copy(), dict[int, list[Seat]](), set[str]()
        for number in sorted(range(len(gang)), key=lambda n: _size(gang[n].request), reverse=True):
            found[number] = []
            for _ in range(gang[number].num):
                seat = left._seat(gang[number].request, used)
                if seat is None:
                    return None
                left.take([seat])
                used.add(seat.node)
                found[number].append(seat)
        return [seat for number in range(len(gang)) for seat in found[number]]

    def _seat(self, request: Request, used: set[str]) -> Seat | None:
        best: tuple[tuple[bool, bool, float, float], Seat] | None = None
        for node, free in self.free.items():
            gpus = self._shares(node, request.get("GPU", 0))
            if gpus is None or any(free.get(w, 0) < a - CRUMB for w, a in request.items() if w != "GPU"):
                continue
            spoils = bool(self.gpus[node]) and not gpus
            rank = (node not in used, spoils, sum(self.gpus[node]), free.get("CPU", 0))
            if best is None or rank < best[0]:
                best = rank, Seat(node, request, gpus)
        return best[1] if best else None

    def _shares(self, node: str, wanted: float) -> dict[int, float] | None:
        """Of which GPUs of the node; of a share the fullest GPU that has it."""
        gpus = self.gpus[node]
        if not wanted:
            return {}
        if wanted < 1:
            fit = [number for number, free in enumerate(gpus) if free >= wanted - CRUMB]
            return {min(fit, key=lambda number: gpus[number]): wanted} if fit else None
        whole = [number for number, free in enumerate(gpus) if free >= 1 - CRUMB]
        return dict.fromkeys(whole[: round(wanted)], 1.0) if len(whole) >= wanted - CRUMB else None

    def take(self, seats: Sequence[Seat]) -> None:
        self._add(seats, -1)

    def give(self, seats: Sequence[Seat]) -> None:
        """Back; a node that has gone takes none."""
        self._add(seats, 1)

    def _add(self, seats: Sequence[Seat], sign: int) -> None:
        for seat in seats:
            if seat.node not in self.free:
                continue
            free, gpus = self.free[seat.node], self.gpus[seat.node]
            for what, amount in seat.request.items():
                if what != "GPU":
                    free[what] = round(free.get(what, 0) + sign * amount, 6)
            for number, share in seat.gpus.items():
                gpus[number] = round(gpus[number] + sign * share, 6)

    def total(self, what: str) -> float:
        """Free on all nodes together."""
        return sum(map(sum, self.gpus.values())) if what == "GPU" else sum(f.get(what, 0) for f in self.free.values())


def _size(request: Request) -> tuple[float, float]:
    return request.get("GPU", 0), request.get("CPU", 0)
