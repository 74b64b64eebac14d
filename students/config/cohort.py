"""What a recipe can say of cohorts: students that teach each other while they train. Knows nothing of torch or ray."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from teachers.config.preprocess import NetworkPreprocess, Preprocess
from teachers.config.resources import Resources
from teachers.config.strict import Config, ImportString, Name

from .cohort_terms import CohortTerm, MethodName, PeerTerm, resolved_objective
from .student import Control, Require, StudentTrain, TakesNoHints, TrainOverride
from .terms import check_ramps, check_teachers

KdclTarget = Literal["naive", "linear", "min_logit", "general"]
Role = Literal["wide_teacher", "deep_teacher", "student"]
WireName = Literal["float16", "bfloat16"]


class MemberTrain(TrainOverride):
    """What a member trains otherwise than its cohort; rows, batches and the budget are the cohort's."""


class MemberConfig(Config):
    """One of the students of a cohort."""

    model: ImportString
    """As a student's."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the model; `${NAME}` in them is a variable of the environment."""
    files: list[str] = []
    """Files and folders that the model reads; they count by content, as does an argument that is a path."""
    preprocess: NetworkPreprocess = Preprocess()
    """From canonical inputs to what this member takes."""
    train: MemberTrain = MemberTrain()
    """What it trains otherwise than its cohort; not where members share a trunk."""
    role: Role | None = None
    """Of `online_teacher`, each member has one: wide_teacher, deep_teacher or student."""
    layers: list[str] = []
    """Names of the modules whose outputs are its stage maps, for the losses `feature` and `channel`."""


class CohortCommon(TakesNoHints):
    """What every cohort has, whatever its method."""

    members: dict[Name, MemberConfig] = Field(min_length=1)
    """By name; `cohort.member` can stand in any `teachers` list."""
    teachers: list[str] = []
    """Frozen teachers that join through the store, for the terms that listen to teachers."""
    objective: list[CohortTerm] = Field(default_factory=list)
    """Of each member: a weighted sum of terms; empty: the method's own, and `soft` where there are `teachers`."""
    train: StudentTrain = StudentTrain()
    """Budget, optimiser and seeds of every member."""
    workers_per_member: int | None = Field(1, ge=1)
    """Data-parallel workers of each member; null: the whole cohort in turn on one worker."""
    deliver: str = "best"
    """What is exported: `best` (on validation), `all`, a member's name, or `ensemble` (the mean of their probabilities)."""
    control: Control = True
    """Train each member alone as well: same seeds, same steps, hard labels only; a mapping: by settings of its own."""
    offline: bool = True
    """Where there are `teachers`: train each member alone from their soft targets as well, same seeds and steps."""
    resources: Resources = Resources()
    """Of one worker."""
    placement: Literal["PACK", "SPREAD"] = "PACK"
    """Workers on as few nodes as can be, or on as many."""
    max_rollbacks: int = Field(3, ge=0)
    """Times that a member that diverged is set back and goes on at half its learning rate."""
    require: Require | None = Require()
    """Quality gates, of what is delivered; null: none, and members that are assistants teach whatever they are worth."""

    @property
    def name_of_method(self) -> MethodName:
        method: MethodName = self.method  # type: ignore[attr-defined]
        return method

    @model_validator(mode="after")
    def resolved(self) -> Self:
        """Fill in what the method decides, then check that the parts fit each other."""
        method = self.name_of_method
        alone, taught = len(self.members) == 1, bool(self.teachers)
        object.__setattr__(self, "objective", resolved_objective(self.objective, method, alone=alone, taught=taught))
        if len(self.members) == 1 and method != "mutual":
            raise ValueError(f"a cohort of one member has nobody to learn from; `{method}` takes two or more")
        self._check_objective(method)
        self._check_members(method)
        check_teachers(self.objective, self.teachers)
        check_ramps(self.objective, self.train)
        if self.deliver not in ("best", "all", "ensemble", *self.members):
            raise ValueError(f"deliver is {self.deliver!r}, expected best, all, ensemble or one of {[*self.members]}")
        if self.deliver == "ensemble" and len({m.preprocess.model_dump_json() for m in self.members.values()}) > 1:
            raise ValueError("deliver: ensemble needs members with one preprocess")
        self._check_batch()
        return self

    def _check_objective(self, method: MethodName) -> None:
        for number, term in enumerate(self.objective):
            where = f"objective.{number}"
            if term.loss == "peer" and len(self.members) == 1:
                raise ValueError(f"{where}: a member alone has no peers; remove the term `peer`")
            if term.loss == "feature" and method != "feature_exchange":
                raise ValueError(f"{where}: the loss `feature` is of the method feature_exchange, this one is {method}")
            if term.loss == "channel" and method != "online_teacher":
                raise ValueError(f"{where}: the loss `channel` is of the method online_teacher, this one is {method}")

    def _check_members(self, method: MethodName) -> None:
        """What a member says is of some use."""
        feature, channel = method == "feature_exchange", any(term.loss == "channel" for term in self.objective)
        for name, member in self.members.items():
            if member.role and method != "online_teacher":
                raise ValueError(f"members.{name}.role: roles are of the method online_teacher, this one is {method}")
            if member.layers and not (feature or (channel and member.role in ("wide_teacher", "student"))):
                raise ValueError(f"members.{name}.layers: nobody compares its stage maps; remove its `layers`")

    def _check_batch(self) -> None:
        if self.train.workers != 1:
            raise ValueError("train.workers is a student's; a cohort says `workers_per_member`")
        parts = self.ranks_of_a_batch * self.train.accumulate
        if self.train.batch_size % parts:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is not divisible by workers * accumulate = {parts}"
            )

    @property
    def ranks_of_a_batch(self) -> int:
        """Among how many workers the rows of one global batch are shared out."""
        return self.workers_per_member or 1

    @property
    def workers(self) -> int:
        """Of the whole cohort."""
        return len(self.members) * self.workers_per_member if self.workers_per_member else 1

    @property
    def members_in_one_process(self) -> bool:
        return self.workers_per_member is None

    def member_train(self, member: str) -> StudentTrain:
        return self.members[member].train.on(self.train).model_copy(update={"workers": self.ranks_of_a_batch})


class SynchronousCohort(CohortCommon):
    """Members that take every step together."""

    wire: WireName | None = None
    """What members exchange is rounded to it; null: as it is."""


class MutualCohort(SynchronousCohort):
    """Deep mutual learning: each member follows all others (Zhang et al., 2018)."""

    method: Literal["mutual"]


class KdclCohort(SynchronousCohort):
    """Online distillation from one target made of all members; each sees its own augmentation (Guo et al., 2020)."""

    method: Literal["kdcl"]
    target: KdclTarget = "min_logit"
    """How the members' logits become one target."""


class SharedTrunkCohort(CohortCommon):
    """Members with one trunk: one model with several heads; `workers_per_member` is of that model."""

    trunk: str | None = None
    """Name of the last module that is shared, `stages.1`; null: the first half of the modules."""

    @model_validator(mode="after")
    def members_differ_in_their_branches_only(self) -> Self:
        first = next(iter(self.members.values()))
        for name, member in self.members.items():
            for key in member.train.model_dump(exclude_none=True):
                raise ValueError(f"members.{name}.train.{key}: one optimiser moves a shared trunk; say `train.{key}`")
            if member.preprocess != first.preprocess:
                raise ValueError(f"members.{name}.preprocess: members of one trunk see the same inputs; give all one")
        return self

    @property
    def members_in_one_process(self) -> bool:
        return True

    @property
    def workers(self) -> int:
        return self.ranks_of_a_batch


class OneCohort(SharedTrunkCohort):
    """Branches that follow their own gated ensemble (Lan et al., 2018)."""

    method: Literal["one"]


class GroupLeaderCohort(SharedTrunkCohort):
    """Peers that follow what each attends to, and a leader that follows their mean (OKDDip, Chen et al., 2020)."""

    method: Literal["group_leader"]
    leader: str | None = None
    """The member that follows the mean of all others; null: the last."""

    @model_validator(mode="after")
    def leader_is_a_member(self) -> Self:
        if len(self.members) < 3:
            raise ValueError("group_leader takes three or more: a leader, and peers that attend to each other")
        if self.leader is not None and self.leader not in self.members:
            raise ValueError(f"leader is {self.leader!r}, expected one of {[*self.members]}")
        return self


class CodistillationCohort(CohortCommon):
    """Members that train apart and listen to older generations of each other (Anil et al., 2018)."""

    method: Literal["codistillation"]
    exchange_every: int = Field(50, ge=1)
    """Steps between two generations of a member, and between two looks for those of its peers."""
    burn_in: int = Field(100, ge=0)
    """Steps before a member listens."""
    max_staleness: int | None = Field(None, ge=1)
    """Steps by which a generation may be behind the member that listens; an older one is not heard. Null: ten times `exchange_every`."""
    own_rows: bool = False
    """Each member draws from its own share of the rows; else all draw from all."""

    @model_validator(mode="after")
    def can_listen(self) -> Self:
        found = sorted({term.temperature for term in self.objective if isinstance(term, PeerTerm) and term.temperature})
        if len(found) != 1:
            raise ValueError(f"codistillation takes a term `peer`, and all such at one temperature; found {found}")
        if not self.has_one_preprocess and any(member.preprocess.text for member in self.members.values()):
            raise ValueError("members run each other on what their own `preprocess` made of text: give all the same")
        return self

    @property
    def workers(self) -> int:
        """Of one member's trainer; members that find no room beside it wait, and listen to those who are done."""
        return self.ranks_of_a_batch

    @property
    def staleness_bound(self) -> int:
        """In steps: who has missed ten exchanges counts as dead, whatever became of it."""
        return self.max_staleness or 10 * self.exchange_every

    @property
    def peer_temperature(self) -> float:
        return next(term.temperature for term in self.objective if isinstance(term, PeerTerm) and term.temperature)

    @property
    def has_one_preprocess(self) -> bool:
        return len({member.preprocess.model_dump_json() for member in self.members.values()}) == 1


class OnlineTeacherCohort(SynchronousCohort):
    """Teachers that learn the task while a student follows them (after OMGD, Ren et al., 2021)."""

    method: Literal["online_teacher"]
    teachers_every: int = Field(1, ge=1)
    """Steps of the student between two steps of its teachers."""

    @model_validator(mode="after")
    def roles_are_given(self) -> Self:
        roles = [member.role for member in self.members.values()]
        if roles.count("student") != 1 or None in roles or roles.count("wide_teacher") > 1:
            raise ValueError("online_teacher takes one student, at most one wide_teacher, and a role for every member")
        if any(term.loss == "channel" for term in self.objective):
            if "wide_teacher" not in roles:
                raise ValueError("the loss `channel` needs a wide_teacher")
            follow = {name: len(m.layers) for name, m in self.members.items() if m.role in ("wide_teacher", "student")}
            check_numbers_of_layers("the loss `channel`", follow)
        return self


class FeatureExchangeCohort(SynchronousCohort):
    """Peers that match each other's stage maps through projectors."""

    method: Literal["feature_exchange"]

    @model_validator(mode="after")
    def layers_are_given(self) -> Self:
        if not any(term.loss == "feature" for term in self.objective):
            raise ValueError("feature_exchange takes a term `feature`; without one the method is `mutual`")
        check_numbers_of_layers("feature_exchange", {name: len(each.layers) for name, each in self.members.items()})
        return self


def check_numbers_of_layers(who: str, numbers: Mapping[str, int]) -> None:
    """Raise ValueError unless all members in `numbers` have as many, and some."""
    if len(set(numbers.values())) != 1 or not all(numbers.values()):
        raise ValueError(f"{who} takes as many `layers` of each member that it compares, at least one; found {numbers}")


CohortConfig = Annotated[
    MutualCohort
    | KdclCohort
    | OneCohort
    | GroupLeaderCohort
    | CodistillationCohort
    | OnlineTeacherCohort
    | FeatureExchangeCohort,
    Field(discriminator="method"),
]
