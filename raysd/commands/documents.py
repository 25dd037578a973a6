"""The answers of the commands as JSON documents, for `--json`; `docs/command.md` says what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raysd.errors import UserError
from raysd.terminal import error_parts

if TYPE_CHECKING:
    from raysd.commands.answers.adaptive import AdaptedClone
    from raysd.commands.answers.captions import CaptionTable
    from raysd.commands.answers.clone import ClonePlan, VerifiedClone
    from raysd.commands.answers.rows import ResultRows
    from raysd.commands.answers.sweep import SweepAnswer
    from raysd.commands.listing import StorageListing


def document_of(command: str, answer: Any) -> dict[str, Any]:
    """Return the answer of a command as values that JSON can hold."""
    return DOCUMENTS[command](answer)


def _plan(plan: "ClonePlan") -> dict[str, Any]:
    spec = plan.clone.spec
    return {
        "classes": list(spec.table.names),
        "model": {"name": spec.model.name, "digest": spec.model.digest, "missing_bytes": spec.model.missing_bytes},
        "scheduler": spec.scheduler,
        "num_inference_steps": spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale,
        "variant": spec.variant_name,
        "prompts": list(plan.prompts),
        "variants": {
            name: {"error": error_parts(example)} if isinstance(example, UserError) else {"prompt": example}
            for name, example in plan.variants.items()
        },
        "findings": [str(finding) for finding in plan.findings],
        "image_size": spec.image_size,
        "stored_size": spec.stored_size,
        "codec": spec.codec,
        "cost": list(plan.cost),
        "confirmation": list(plan.confirmation),
        "rounds": list(plan.rounds),
        "clones": [
            {
                "path": each.path if each.clone.spec.is_here else None,
                "fingerprint": each.fingerprint if each.clone.spec.is_here else None,
                "seed": each.clone.spec.seed,
                "num_images": each.num_images,
                "num_shards": each.num_shards,
                "num_missing_shards": each.num_missing_shards,
                "num_bytes": round(each.num_bytes),
            }
            for each in plan.clones
        ],
    }


def _doctor(failures: Sequence[UserError]) -> dict[str, Any]:
    return {"is_well": not failures, "failures": [error_parts(failure) for failure in failures]}


def _caption(table: "CaptionTable") -> dict[str, Any]:
    return {
        "path": table.path,
        "num_written": table.num_written,
        "captions": dict(table.captions),
        "variant": table.variant,
        "about": table.about,
    }


def _verify(clone: "VerifiedClone") -> dict[str, Any]:
    clones = [
        {
            "path": each.path,
            "fingerprint": each.fingerprint,
            "num_images": len(each.clone),
            "problems": {str(number): problem for number, problem in each.problems.items()},
        }
        for each in clone.clones
    ]
    return {"is_whole": clone.is_whole, "clones": clones}


def _rows(results: "ResultRows[Any]") -> dict[str, Any]:
    return {
        "rows": list(results.rows),
        "path": results.path,
        "skipped": dict(results.skipped),
        "failed": list(results.failed),
    }


def _sweep(answer: "SweepAnswer") -> dict[str, Any]:
    return {
        "best": answer.best,
        "best_config": answer.best_config,
        "report": answer.report,
        "summary": list(answer.written_report.summary),
        "failed": list(answer.failed),
        "row": answer.row,
    }


def _adapt(answer: "AdaptedClone") -> dict[str, Any]:
    return {
        "row": answer.row,
        "rounds": list(answer.rounds),
        "accuracies": list(answer.accuracies),
        "config": answer.config,
        "failed": list(answer.failed),
    }


def _listing(listing: "StorageListing") -> dict[str, Any]:
    return asdict(listing)


DOCUMENTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "plan": _plan,
    "doctor": _doctor,
    "caption": _caption,
    "verify": _verify,
    "evaluate": _rows,
    "compare": _rows,
    "adapt": _adapt,
    "sweep": _sweep,
    "demo": _sweep,
    "list_storage": _listing,
}
