"""What can go wrong for a user; the command line prints one line of it and exits with its code.

CollegiumError          1   the run failed
├── UsersCodeError      1   code that the recipe names raised something
├── RecipeError         2   the recipe or the command line is wrong (also a ValueError)
├── DataError           1   rows that cannot be used
├── TeacherError        1   a teacher that cannot be loaded or says what it must not
├── StoreError          1   a store, stage or model folder that is damaged or foreign
├── StorageError        1   an object store that did not answer, or answered otherwise than it should (also an OSError)
├── GateMissed          3   a teacher that is not what the recipe requires: no student was trained from it
├── BudgetSpent         3   an endpoint has used what the recipe allows; a higher `budget` goes on
└── EnvironmentUnfit    4   the machine or cluster lacks something
"""


class CollegiumError(Exception):
    exit_code = 1


class UsersCodeError(CollegiumError):
    """`key` is the recipe's; `what` says whose code raised what, and where."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(key, what)
        self.key, self.what = key, what

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


class RecipeError(CollegiumError, ValueError):
    exit_code = 2


class DataError(CollegiumError):
    pass


class TeacherError(CollegiumError):
    pass


class BadRowsError(TeacherError):
    """Rows of a shard that cannot be answered, though others of it can; another try would say the same."""


class StoreError(CollegiumError):
    pass


class GateMissed(CollegiumError):
    exit_code = 3


class BudgetSpent(CollegiumError):
    exit_code = 3


class EnvironmentUnfit(CollegiumError):
    exit_code = 4


class StorageError(CollegiumError, OSError):
    """Also an OSError: whoever survives a failed disk survives a storage that does not answer."""


class AskAgain(Exception):
    """Raised by a function of a `callable` teacher: nobody answered this batch, and somebody may after `after_s` seconds."""

    def __init__(self, why: str = "", after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s
