"""Results of an evaluation, as stored in eval.json, and the table made of them. No I/O but files.

Rows keep every image's score, so that differences between models are paired image by image, also
with rows measured elsewhere; rows of other weights, prompts or noise are an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from trainer.errors import TrainerError
from trainer.evaluation.intervals import Estimate, mean, mean_of, paired_difference, wilson
from trainer.evaluation.prompts import TEXT

FORMAT = 1
OVERALL = "overall"
TEACHER, START, TRAINED = "teacher", "start", "trained"
SURROGATE = "surrogate"  # phi itself as a many-step sampler


class EvaluationError(TrainerError):
    """Evaluation results that are missing, damaged, or belong to something else."""


def _unpack(value: Any) -> Any:
    if isinstance(value, str):
        return [None if c == "-" else float(c) for c in value]
    return value


def _pack(values: list[float | None]) -> Any:
    """All-or-nothing scores as a string of 1, 0 and - (missing): a tenth of the bytes."""
    if all(v in (None, 0.0, 1.0) for v in values):
        return "".join("-" if v is None else str(int(v)) for v in values)
    return [None if v is None else round(v, 4) for v in values]


Scores = Annotated[list[float | None], BeforeValidator(_unpack), PlainSerializer(_pack)]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Row(_Stored):
    """One model: per tag the score of every image, null where scoring failed.

    `scores` are the server's (strict counting 0 or 1; OCR similarity in [0, 1]); `second` are the
    second scorer's verdicts on composition, empty for worlds it cannot judge.
    """

    label: str
    nfe: int
    scores: dict[str, Scores]
    second: dict[str, Scores] = {}
    seconds: float = 0.0


class Evaluation(_Stored):
    """Rows measured on the same prompts and noise, and what they were measured with."""

    format: int = FORMAT
    seed: int
    prompts_sha256: str
    prompt_counts: dict[str, int]  # distinct prompts per tag: image k shows prompt k mod this
    weights: dict[str, str]  # sha256 of every weight file of the model folder
    scorers: dict[str, str]
    versions: dict[str, str]
    sampling: dict[str, Any] = {}  # what teacher and start were sampled with; empty: not recorded
    rows: dict[str, Row]

    def joined(self, other: Evaluation) -> Evaluation:
        """These rows and the other's (which win), after checking that they may be compared.

        Raises:
            EvaluationError: on other weights, prompts or noise.
        """
        for name, remedy in (
            ("weights", "measure these rows again with `python -m trainer eval`"),
            ("prompts_sha256", "evaluate both on the same prompts"),
            ("seed", "evaluate both with the same --seed"),
        ):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise EvaluationError(
                    f"results of different {name} cannot share a table "
                    f"({_brief(mine)} against {_brief(theirs)}); {remedy}"
                )
        return self.model_copy(update={"rows": {**self.rows, **other.rows}})

    def first(self, per_tag: Mapping[str, int]) -> Self:
        """Only the first images of each tag: the ones another row was measured on."""
        rows = {
            name: row.model_copy(
                update={
                    "scores": {t: row.scores[t][:n] for t, n in per_tag.items() if t in row.scores},
                    "second": {t: row.second[t][:n] for t, n in per_tag.items() if t in row.second},
                }
            )
            for name, row in self.rows.items()
        }
        return self.model_copy(update={"rows": rows})


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 24 else hashlib.sha256(text.encode()).hexdigest()[:12]


def weight_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every safetensors file below a folder, by relative path; of a single file."""
    if folder.is_file():
        return {folder.name: _sha256(folder)}
    files = sorted(folder.rglob("*.safetensors"))
    return {f.relative_to(folder).as_posix(): _sha256(f) for f in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(evaluation: Evaluation, path: Path) -> None:
    """Write eval.json at once: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(evaluation.model_dump(), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def load(path: Path) -> Evaluation:
    """Read eval.json.

    Raises:
        EvaluationError: missing, damaged, or of another format.
    """
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(
            f"{path} does not exist; measure teacher and start as well with --all-rows, or once "
            f"for all runs with: python -m trainer eval --model {path.parent} --config FILE"
        ) from None
    except (OSError, ValidationError) as error:
        raise EvaluationError(f"{path} is no evaluation this version reads: {error}") from error


def require_weights(evaluation: Evaluation, folder: Path, source: Path) -> None:
    """Check that stored rows are of the weights in `folder`.

    Raises:
        EvaluationError: naming the files that differ.
    """
    now = weight_hashes(folder)
    names = sorted(now.keys() | evaluation.weights.keys())
    differing = [n for n in names if now.get(n) != evaluation.weights.get(n)]
    if differing:
        raise EvaluationError(
            f"{source} was measured with other weights than {folder} holds "
            f"(differing: {', '.join(differing)}); restore the weights, or measure again with: "
            f"python -m trainer eval --model {folder} --config FILE"
        )


def require_sampling(evaluation: Evaluation, now: Mapping[str, Any], source: Path) -> None:
    """Check that stored rows were sampled as `now`, as far as that was recorded.

    Raises:
        EvaluationError: naming what differs, with both values.
    """
    then = evaluation.sampling
    different = [f"{k}: {then[k]!r} there, {now[k]!r} here" for k in then if then[k] != now.get(k)]
    if different:
        raise EvaluationError(
            f"teacher and start in {source} were sampled otherwise than this run would "
            f"({'; '.join(different)}); measure them again with --all-rows"
        )


@dataclass(frozen=True)
class Table:
    """What the report shows. Cells by column: the tags, OVERALL, TEXT; absent where unmeasured."""

    columns: tuple[str, ...]
    rows: dict[str, dict[str, Estimate]]
    differences: dict[tuple[str, str], dict[str, Estimate]]
    second: dict[str, dict[str, Estimate]]
    second_differences: dict[tuple[str, str], dict[str, Estimate]]
    agreement: dict[str, Estimate]


PAIRS = ((TRAINED, START), (TRAINED, TEACHER), (START, TEACHER))


def table(evaluation: Evaluation) -> Table:
    """Estimates of every row and paired differences, with 95 % intervals."""
    rows, counts = evaluation.rows, evaluation.prompt_counts
    pairs = [(a, b) for a, b in PAIRS if a in rows and b in rows]
    tags = [t for t in counts if t != TEXT]
    scores = {name: row.scores for name, row in rows.items()}
    second = {name: row.second for name, row in rows.items() if row.second}
    return Table(
        columns=(*tags, OVERALL, *([TEXT] if TEXT in counts else [])),
        rows={name: _cells(s, counts) for name, s in scores.items()},
        differences={(a, b): differences(scores[a], scores[b], counts) for a, b in pairs},
        second={name: _cells(s, counts) for name, s in second.items()},
        second_differences={
            (a, b): differences(second[a], second[b], counts)
            for a, b in pairs
            if a in second and b in second
        },
        agreement=_agreement(list(rows.values())),
    )


def _cells(
    scores: Mapping[str, Sequence[float | None]], counts: Mapping[str, int]
) -> dict[str, Estimate]:
    cells: dict[str, Estimate] = {}
    for tag, values in scores.items():
        kept = [(v, k % counts[tag]) for k, v in enumerate(values) if v is not None]
        if not kept:
            continue
        if tag == TEXT:
            cells[tag] = mean([v for v, _ in kept], [c for _, c in kept])
        else:
            cells[tag] = wilson(sum(v >= 1 for v, _ in kept), len(kept))
    return _with_overall(cells)


def differences(
    after: Mapping[str, Sequence[float | None]],
    before: Mapping[str, Sequence[float | None]],
    counts: Mapping[str, int],
) -> dict[str, Estimate]:
    """Paired differences after - before per tag and overall, over images that both have."""
    cells: dict[str, Estimate] = {}
    for tag in after.keys() & before.keys():
        pairs = enumerate(zip(after[tag], before[tag], strict=False))
        kept = [(a, b, k % counts[tag]) for k, (a, b) in pairs if a is not None and b is not None]
        if kept:
            cells[tag] = paired_difference(*(list(column) for column in zip(*kept, strict=True)))
    return _with_overall({tag: cells[tag] for tag in after if tag in cells})


def _with_overall(cells: dict[str, Estimate]) -> dict[str, Estimate]:
    composition = {tag: cell for tag, cell in cells.items() if tag != TEXT}
    return {**cells, OVERALL: mean_of(composition)} if composition else cells


def _agreement(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Share of images on which the two scorers give the same verdict, per tag and in all."""
    same: dict[str, list[bool]] = {}
    for row in rows:
        for tag, verdicts in row.second.items():
            for first, second in zip(row.scores.get(tag, []), verdicts, strict=False):
                if first is not None and second is not None:
                    same.setdefault(tag, []).append((first >= 1) == (second >= 1))
    everything = [verdict for verdicts in same.values() for verdict in verdicts]
    cells = {tag: wilson(sum(v), len(v)) for tag, v in same.items()}
    return {**cells, OVERALL: wilson(sum(everything), len(everything))} if everything else {}
