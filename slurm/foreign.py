"""Finished runs of other code: found, named, and refused, reused or set aside, never mixed in silently."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from secateur.eval.code import library_versions
from secateur.eval.record import RECORD
from secateur.pruning.errors import SecateurError, StorageError
from secateur.pruning.files import read_json
from secateur.pruning.provenance import code_version
from secateur.slurm.plan import Plan, Task
from secateur.slurm.state import read_state, run_folder

ASIDE = ".replaced"
"""Hidden folder below `OUT` for runs that were set aside; analysis does not look into it."""


class ForeignError(SecateurError):
    """Finished runs were made by other code than that of this grid."""


@dataclass(frozen=True)
class Foreign:
    """A finished run that this code may not have made."""

    task: str
    why: str


def find_foreign(plan: Plan) -> list[Foreign]:
    """Finished runs of the plan whose code or libraries are not the plan's."""
    found = [(task.id, _difference(plan, task)) for task in plan.of("baseline", "run")]
    return [Foreign(name, why) for name, why in found if why]


def settle(plan: Plan, foreign: list[Foreign]) -> list[str]:
    """Do with runs of other code what the plan says; return the sentences that say so.

    Raises:
        ForeignError: The plan refuses them.
        StorageError: A run cannot be set aside.
    """
    if not foreign:
        return []
    first = foreign[0]
    what = f"{len(foreign)} finished runs were made by other code, e.g. {first.task}: {first.why}"
    if plan.foreign == "refuse":
        raise ForeignError(
            f"{what}.\nforeign=redo sets them aside (in {plan.out}/{ASIDE}) and runs them again, "
            f"foreign=reuse takes them as they are, out=DIR starts another folder"
        )
    if plan.foreign == "reuse":
        return [f"reused although {what}"]
    for item in foreign:
        target = run_folder(plan, ASIDE) / f"{item.task}.{uuid4().hex[:8]}"
        try:
            target.parent.mkdir(exist_ok=True)
            run_folder(plan, item.task).rename(target)
        except OSError as error:
            raise StorageError(f"{item.task} cannot be set aside: {error}") from error
    return [f"set aside in {plan.out}/{ASIDE}: {what}"]


def _difference(plan: Plan, task: Task) -> str:
    """Why a finished run may differ from what this code would make; empty when it does not."""
    path = run_folder(plan, task.id) / RECORD
    if not path.is_file():
        return ""
    state = read_state(plan, task.id)
    if state is not None and state.code:
        return "" if state.code == plan.code else f"code {state.code}, this is {plan.code}"
    try:
        provenance: dict[str, Any] = read_json(path).get("provenance") or {}
    except (StorageError, AttributeError) as error:
        return f"its record cannot be read ({error})"
    return _by_provenance(plan, provenance)


def _by_provenance(plan: Plan, provenance: dict[str, Any]) -> str:
    """The same for a run that no grid has started: by what its record says about its code."""
    if provenance.get("code") is not None:
        return "" if provenance["code"] == plan.code else f"code {provenance['code']}, this is {plan.code}"
    theirs = provenance.get("packages") or {}
    other = [
        f"{name} {theirs.get(name)}, here {mine}"
        for name, mine in library_versions().items()
        if theirs.get(name) != mine
    ]
    if other:
        return "; ".join(other)
    mine = code_version()
    if mine["commit"] is None or (provenance.get("commit"), provenance.get("dirty")) != (
        mine["commit"],
        False,
    ):
        return (
            f"commit {provenance.get('commit')} (changed: {provenance.get('dirty')}), here {mine['commit']}"
        )
    return (
        ""
        if mine["dirty"] is False
        else f"made by the clean commit {mine['commit']}, here files differ from it"
    )
