"""What an estimator is told of its features: which are categories, and whether it takes numbers that are missing."""

import inspect
from collections.abc import Sequence
from typing import Any

from ..config.teacher import SklearnTeacher
from ..errors import RecipeError
from ..transfer_set.columns import Column
from .preprocess import Preprocessor

CATEGORY_KEYWORDS = ("categorical_feature", "cat_features")
"""Of `fit`, by which LightGBM and CatBoost are told which features are categories."""


def check_takes_nan(estimator: Any, config: SklearnTeacher, columns: Sequence[Column]) -> None:
    """Raise RecipeError where an estimator would get NaN, and says of itself that it takes none."""
    from sklearn.utils import get_tags

    kept = config.preprocess.missing == "keep" and any(column.kind == "number" and column.missing for column in columns)
    native = config.preprocess.categories == "native" and any(column.kind == "category" for column in columns)
    if config.preprocess.function is not None or not (kept or native):
        return
    try:
        takes_nan = get_tags(estimator).input_tags.allow_nan
    except AttributeError:  # it says nothing
        return
    if not takes_nan:
        key, cure = ("missing: keep", "missing: mean") if kept else ("categories: native", "categories: one_hot")
        raise RecipeError(
            f"preprocess: `{key}` gives NaN, which {type(estimator).__name__} does not take; say `{cure}`, or choose an "
            f"estimator that does (HistGradientBoostingClassifier, LightGBM, XGBoost)"
        )


def check_no_ids(preprocessor: Preprocessor) -> None:
    """Raise RecipeError where an estimator would get ids of text."""
    if preprocessor.text is not None and preprocessor.text.vocabulary_size is not None:
        raise RecipeError(
            f"preprocess.{preprocessor.text.kind}: gives ids, which an estimator would take for numbers; say `encoder`, or "
            f"leave it out and name an estimator that reads text: a pipeline that begins with a TfidfVectorizer"
        )


def categories_told(estimator: Any, config: SklearnTeacher, preprocessor: Preprocessor) -> dict[str, Any]:
    """Tell an estimator which of its features are categories; keywords of its `fit`, where it is told there.

    Raises RecipeError where `categories: native` asks for that and it takes no such list.
    """
    if config.preprocess.categories != "native" or not preprocessor.categorical_positions:
        return {}
    places = list(preprocessor.categorical_positions)
    if "categorical_features" in estimator.get_params(deep=False):
        estimator.set_params(categorical_features=places)
        return {}
    keyword = next((name for name in CATEGORY_KEYWORDS if name in inspect.signature(estimator.fit).parameters), None)
    if keyword is None:
        raise RecipeError(
            f"preprocess: `categories: native` is of estimators that are told which features are categories, and "
            f"{type(estimator).__name__} is not; say `ordinal` or `one_hot`"
        )
    return {keyword: places}
