"""Terms of a cohort's objective, and what each method takes where the recipe says nothing. Knows nothing of torch or ray."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, Tag

from teachers.config.strict import tag_or

from .distance import Distance
from .lfme_term import LfmeTerm
from .own_terms import OwnTerm
from .terms import TAUGHT, HardTerm, PeerLossName, Ramp, Term, TermCommon

MethodName = Literal["mutual", "kdcl", "one", "group_leader", "codistillation", "online_teacher", "feature_exchange"]

PEER_TEMPERATURE: dict[MethodName, float] = {
    "mutual": 1.0,
    "kdcl": 2.0,
    "one": 3.0,
    "group_leader": 3.0,
    "codistillation": 1.0,
    "online_teacher": 4.0,
    "feature_exchange": 1.0,
}
"""Where the recipe says nothing; the papers' own, where they name one."""


class PeerTerm(Distance, TermCommon):
    """T^2 KL(peers || member) of softened distributions, of numbers a distance: what the others say now, or what the method makes of it."""

    loss: Literal["peer"]
    temperature: float | None = Field(None, gt=0)
    """Softens both sides; null: the method's own (mutual 1, one and group_leader 3, ...)."""
    reduce: Literal["mean", "sum"] | None = None
    """Over the peers: their mean, 1 / (K - 1) of each, or their sum; null: the method's own (a sum for online_teacher)."""


class FeatureTerm(TermCommon):
    """Mean square between a member's projected stage maps and its peers' (of `feature_exchange`)."""

    loss: Literal["feature"]


class ChannelTerm(TermCommon):
    """Mean square between the channel means of projected stage maps and of the wide teacher's (of `online_teacher`)."""

    loss: Literal["channel"]


CohortTerm = Annotated[
    Annotated[PeerTerm, Tag("peer")]
    | Annotated[FeatureTerm, Tag("feature")]
    | Annotated[ChannelTerm, Tag("channel")]
    | Annotated[Term, Tag("term")],
    tag_or(get_args(PeerLossName), "loss", "term"),
]
"""One term of a cohort's objective, chosen by `loss`."""

HARD = HardTerm(loss="hard")
SIGMOID = Ramp(share=0.27, shape="sigmoid")
"""80 of 300 epochs (Lan et al., 2018)."""
OBJECTIVES: dict[MethodName, tuple[CohortTerm, ...]] = {
    "mutual": (HARD, PeerTerm(loss="peer")),
    "kdcl": (HARD, PeerTerm(loss="peer")),
    "one": (HARD, PeerTerm(loss="peer", ramp=SIGMOID)),
    "group_leader": (HARD, PeerTerm(loss="peer", ramp=SIGMOID)),
    "codistillation": (HARD, PeerTerm(loss="peer")),
    "online_teacher": (PeerTerm(loss="peer"),),
    "feature_exchange": (HARD, PeerTerm(loss="peer"), FeatureTerm(loss="feature")),
}
"""Where the recipe says nothing."""


def default_objective(method: MethodName, *, alone: bool, taught: bool) -> list[CohortTerm]:
    """The method's own; with frozen teachers these and the labels count as for a student, and peers as ever."""
    own = [term for term in OBJECTIVES[method] if not alone or term.loss == "hard"]
    if not taught:
        return own
    soft, hard = TAUGHT
    return [soft, *(hard if term.loss == "hard" else term for term in own)]


def resolved_objective(
    given: Sequence[CohortTerm], method: MethodName, *, alone: bool, taught: bool
) -> list[CohortTerm]:
    """`given`, or the method's own, with what it leaves to the method. Raises ValueError for what members do not keep."""
    for number, term in enumerate(given):
        if isinstance(term, OwnTerm):
            raise ValueError(
                f"objective.{number}.loss: members of a cohort keep no earlier self to learn from by {term.loss!r}; remove it, "
                f"or train a student by it"
            )
        if isinstance(term, LfmeTerm):
            raise ValueError(
                f"objective.{number}.loss: members of a cohort are not paced by experts (`lfme`); train a student by it, or let "
                f"members hear the experts by `loss: soft`"
            )
    return [with_defaults(term, method) for term in given or default_objective(method, alone=alone, taught=taught)]


def with_defaults(term: CohortTerm, method: MethodName) -> CohortTerm:
    """`term` with the method's own temperature and reduction, where it has none."""
    if not isinstance(term, PeerTerm):
        return term
    own = {"temperature": PEER_TEMPERATURE[method], "reduce": "sum" if method == "online_teacher" else "mean"}
    return term.model_copy(update={key: value for key, value in own.items() if getattr(term, key) is None})
