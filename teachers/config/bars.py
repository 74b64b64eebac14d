"""What a quality gate asks of figures. Which figures there are is the task's to say, so the recipe checks their names."""

from pydantic import ConfigDict

from .strict import Config


class Bars(Config):
    """A bar a figure, by its key: at least, or at most where less is better; null: no bar."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    @property
    def bars(self) -> dict[str, float]:
        """Those that are set."""
        return {key: bar for key, bar in (self.__pydantic_extra__ or {}).items() if bar is not None}
