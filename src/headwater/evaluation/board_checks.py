"""What is wrong with a setting is said before anything is trained: names, banks of other things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.evaluation.bank import Bank
    from headwater.evaluation.board import Setting

UNSEEN = ("seed", "checkpoints", "save_every")  # of a recipe: a bank sets them itself


def check(setting: Setting) -> None:
    """Raise where a setting cannot make a board.

    Raises:
        InputError: for names that come twice or not at all, and for banks of another training.
    """
    columns = [column for metric in setting.metrics for column in metric.columns]
    for what, names in (
        ("method", [one.name for one in setting.methods]),
        ("metric", [one.name for one in setting.metrics]),
        ("column", columns),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise InputError(
                f"A board needs every {what} once",
                expected="at least one, each of another name",
                found=", ".join(twice) or "none",
            )
    if setting.headline is not None and setting.headline not in columns:
        raise InputError(
            "The chart's column is not on the board",
            expected=", ".join(columns),
            found=setting.headline,
        )
    for metric in setting.metrics:
        bank: Bank | None = getattr(metric, "bank", None)
        if bank is not None:
            _check_bank(setting, metric.name, bank)


def _check_bank(setting: Setting, name: str, bank: Bank) -> None:
    """Raise where a bank is of other queries, data or recipe than the board."""
    from headwater.evidence.random_scores import digest
    from headwater.index.corpus_shards import fingerprint

    asked = [digest(query)[:16] for query in setting.queries]
    told = bank.trainer.describe()
    pairs: list[tuple[str, Any, Any]] = [
        ("queries", asked, bank.trainer.asked()),
        ("corpus", fingerprint(setting.corpus), told.get("corpus")),
        ("recipe", _decided(setting.training.get("recipe")), _decided(told.get("recipe"))),
    ]
    for what, mine, other in pairs:
        if other is not None and mine is not None and mine != other:
            raise InputError(
                f"The bank of {name} is of another {what}",
                expected=f"the {what} of this board",
                found=_differing(mine, other),
                do="make the bank with the very same training",
            )


def _decided(recipe: Any) -> Any:
    if not _is_dict(recipe):
        return recipe
    return {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.items() if k not in UNSEEN}


def _is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _differing(mine: Any, other: Any) -> str:
    if _is_dict(mine) and _is_dict(other):
        names = [name for name in mine if mine[name] != other.get(name)]
        return ", ".join(f"{n} {other.get(n)} instead of {mine[n]}" for n in names)
    if isinstance(mine, list):
        return f"{len(other)} others instead of {len(mine)}"
    return f"{other} instead of {mine}"
