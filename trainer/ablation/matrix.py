"""An ablation: one matrix of variants and seeds, every cell a run like any other.

What is to be run comes from a TOML file, and how far it is from the runs' folders. A matrix with a
cell that could not be trained is an error before any is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainer.ablation.kept import KeptCell, read_cell
from trainer.config import Config, Count, Section, load_config
from trainer.config.reading import overridden, read_toml
from trainer.errors import ConfigError
from trainer.run.checkpoint import require_same
from trainer.run.folder import EVALUATION, read_config
from trainer.run.state import CHECKPOINTS, CONFIG

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FAILURE = "failure.txt"  # why a cell stopped by itself; gone when it is run again
State = Literal["missing", "begun", "failed", "done"]


class Variant(Section):
    """One column of the matrix: the base configuration with some values changed.

    seeds: of this variant, where an order needs more of them than the matrix has.
    """

    name: str = Field(pattern=NAME)
    title: str
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)


class Claim(Section):
    """An order that is claimed somewhere: `above` scores higher than `below`."""

    above: str
    below: str


class Ablation(Section):
    """The matrix, how much of each cell is measured, and the page it ends in.

    The first variant is the one that the others are compared with.
    """

    name: str = Field(pattern=NAME)
    title: str
    base: Path
    folder: Path = Path("runs")
    page: Path = Path("docs/results.md")
    # The file where the numbers of finished cells stay when the runs are gone, for example in the
    # tree: a cell found there is done. None: in the runs' folders alone.
    kept: Path | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    images_per_tag: Count = 100
    signs: Count = 100
    set: tuple[str, ...] = ()  # for every cell, before the variant's own
    variants: tuple[Variant, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()  # orders the page says the verdict of

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        lists = [([v.name for v in self.variants], "variants"), (self.seeds, "seeds")]
        lists += [(self.seeds_of(v), f"seeds of {v.name}") for v in self.variants]
        for values, what in lists:
            twice = sorted({str(v) for v in values if list(values).count(v) > 1})
            if twice:
                raise ValueError(f"{what}: {', '.join(twice)} occurs twice; name each cell once")
        return self

    @model_validator(mode="after")
    def _claims_name_variants(self) -> Self:
        names = [v.name for v in self.variants]
        for name in (name for claim in self.claims for name in (claim.above, claim.below)):
            if name not in names:
                raise ValueError(f"claims: no variant {name!r}; there are {', '.join(names)}")
        return self

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """The variant's own seeds, or those of the matrix."""
        return self.seeds if variant.seeds is None else variant.seeds

    @property
    def cells(self) -> list[Cell]:
        """All cells, seed by seed, so that every variant has one result early."""
        seeds = dict.fromkeys(seed for v in self.variants for seed in self.seeds_of(v))
        return [
            Cell(self, variant, seed)
            for seed in seeds
            for variant in self.variants
            if seed in self.seeds_of(variant)
        ]

    @property
    def home(self) -> Path:
        """The folder of the cells' runs."""
        return self.folder / self.name


@dataclass(frozen=True)
class Cell:
    """One variant with one seed."""

    ablation: Ablation
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """The run's name, and its folder's."""
        return f"{self.variant.name}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.ablation.home / self.name

    def kept(self) -> KeptCell | None:
        """Its numbers, if they have been kept apart from the run."""
        return None if self.ablation.kept is None else read_cell(self.ablation.kept, self.name)

    def config(self, url: str | None = None) -> Config:
        """The run's configuration, with the reward server at `url`.

        Raises:
            ConfigError: naming the variant whose values do not fit.
        """
        own = [f'run.name="{self.name}"', f'run.folder="{self.ablation.home}"']
        own += [f"run.seed={self.seed}", "run.live_view=false"]
        if url is not None:
            own.append(f'server.url="{url}"')
        try:
            return load_config(self.ablation.base, [*self.ablation.set, *self.variant.set, *own])
        except ConfigError as error:
            raise ConfigError(f"variant {self.variant.name}: {error}") from error

    def state(self) -> State:
        """How far the cell is.

        Raises:
            CheckpointError: its folder holds a run of another configuration.
        """
        wanted = self.config()
        if (kept := self.kept()) is not None:
            require_same(Path(f"{self.ablation.kept}:{self.name}"), _tree(kept.config), wanted)
            if kept.config.run.iterations == wanted.run.iterations:
                return "done"
        failed = (self.folder / FAILURE).is_file()
        if not (self.folder / CONFIG).is_file():
            return "failed" if failed else "missing"
        stored = read_config(self.folder)
        require_same(self.folder, _tree(stored), wanted)
        as_long = stored.run.iterations == wanted.run.iterations
        if (self.folder / EVALUATION).is_file() and as_long:
            return "done"
        if failed:
            return "failed"
        return "begun" if (self.folder / CHECKPOINTS).is_dir() else "missing"


def _tree(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def load_ablation(path: Path, overrides: Sequence[str] = ()) -> Ablation:
    """Reads the matrix and checks that every cell of it could be trained.

    Raises:
        ConfigError: naming the key or the variant that does not fit.
    """
    ablation = overridden(Ablation, read_toml(path), overrides)
    for cell in ablation.cells:
        cell.config()
    return ablation


def find_cell(ablation: Ablation, name: str) -> Cell:
    """The cell of that name.

    Raises:
        ConfigError: naming those there are.
    """
    for cell in ablation.cells:
        if cell.name == name:
            return cell
    known = ", ".join(cell.name for cell in ablation.cells)
    raise ConfigError(f"{ablation.name} has no cell {name!r}; it has: {known}")
