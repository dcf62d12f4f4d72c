"""`robolearn dataset`: look at, check, repair, edit and convert datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from robolearn.cli.parsing.help import terminal_width, two_columns
from robolearn.configuration.dataset_verbs import (
    ConvertConfig,
    DeleteConfig,
    FilterConfig,
    InfoConfig,
    MergeConfig,
    RepairConfig,
    SplitConfig,
    TrimConfig,
    ValidateConfig,
)
from robolearn.configuration.parts.dataset_names import beside
from robolearn.configuration.parts.task import environment_name
from robolearn.errors import ConfigError, count

TABLE_WIDTH = 90
"""Columns that the table of episodes needs; with less, episodes are listed."""


def info(config: InfoConfig) -> int:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from robolearn.datasets.dataset import Dataset

    console = Console()
    with Dataset(config.path, reading=config.reading) as dataset:
        infos, lengths = dataset.info, np.array(dataset.lengths, int)
        modes: Counter[int] = Counter()
        for i in range(len(dataset)):
            modes.update(_modes(dataset, i))
        overview = Table.grid(padding=(0, 2))
        rows = {
            "task": dataset.task,
            "environment": _environment(dataset.env_args),
            "control rate": f"{dataset.control_hz:g} Hz",
            "size": f"{Path(config.path).stat().st_size / 1e6:.1f} MB",
            "episodes": f"{len(dataset)}, {sum(info.success for info in infos)} successful",
            "steps": f"{lengths.sum()} ({_spread(lengths)} per episode)",
            "acted": ", ".join(f"{n} {name}" for name, n in _named(modes).items()) or "nobody",
            "sources": _counts(info.source + (f" round {info.round}" if info.round else "") for info in infos),
            "operators": _counts(info.operator or "unnamed" for info in infos),
            "seeds": _seeds([info.seed for info in infos]),
            "masks": ", ".join(f"{name} ({len(m)})" for name, m in dataset.masks.items()) or "none",
            "actions": f"{dataset.action_spec.size}: {', '.join(dataset.action_spec.names)}",
            "limits": _limits(dataset.action_spec),
        }
        for name, value in rows.items():
            overview.add_row(name, value)
        console.print(overview)
        keys = Table("observation", "shape", "dtype")
        for key, spec in dataset.observation_spec.items():
            keys.add_row(key, str(spec.shape), spec.dtype)
        console.print(keys)
        _print_lines("assumed", dataset.assumptions)
        _print_lines("odd", _odd(dataset))
        if config.episodes:
            console.print(_episode_table(dataset) if console.width >= TABLE_WIDTH else _episode_lines(dataset))
    return 0


def validate(config: ValidateConfig) -> int:
    from robolearn.datasets.tools.validate import examine

    found = examine(config.path, config.reading)
    problems = found.problems
    _print_lines("assumed", found.assumed)
    _print_lines("odd", found.odd)
    for problem in problems:
        print(f"{problem.place}: {problem.message}\n    to do: {problem.remedy}")
    print(f"{config.path}: {count(len(problems), 'problem')}" if problems else f"{config.path}: no faults found")
    return 2 if problems else 0


def repair(config: RepairConfig) -> int:
    from robolearn.datasets.recording.repair import describe, repair as mend

    print("\n".join(describe(mend(config.path))))
    return 0


def merge(config: MergeConfig) -> int:
    from robolearn.datasets.tools import edit

    _print_lines("note", edit.merge(config.paths, config.output, config.reading))
    return _written(config.output)


def split(config: SplitConfig) -> int:
    from robolearn.datasets.dataset import Dataset
    from robolearn.datasets.tools import edit
    from robolearn.datasets.windows import split as draw

    path = Path(config.path)
    with Dataset(path, reading=config.reading) as dataset:
        names = dataset.episodes
        alike = edit.duplicates(dataset)
        if config.masks:
            unknown = sorted(set(config.masks) - set(dataset.masks))
            if unknown:
                raise ConfigError(f"{path} has no masks {unknown}; it has {sorted(dataset.masks)}")
            groups = {mask: [names[i] for i in dataset.masks[mask]] for mask in config.masks}
        else:
            train, valid = draw(dataset, config.valid_fraction, config.seed)
            groups = {"train": list(train.episodes), "valid": list(valid.episodes)}
            if left := len(names) - sum(map(len, groups.values())):
                _print_lines("note", [f"left out, for the masks train and valid name others: {count(left, 'episode')}"])
    outputs = {beside(path, f"_{name}"): demos for name, demos in groups.items()}
    _print_lines("note", (f"{first} and {second} are the same episode" for first, second in alike))
    _print_lines("note", edit.split(path, outputs, config.reading))
    return max(_written(str(output)) for output in outputs)


def delete(config: DeleteConfig) -> int:
    from robolearn.datasets.tools import edit

    _print_lines("note", edit.delete(config.path, config.output, config.episodes, config.reading))
    return _written(config.output)


def filter(config: FilterConfig) -> int:
    from robolearn.datasets.tools import edit

    names = ("mask", "success", "source", "operator", "round", "interrupted", "min_steps", "max_steps")
    conditions = {name: getattr(config, name) for name in names}
    _print_lines("note", edit.filter(config.path, config.output, reading=config.reading, **conditions))
    return _written(config.output)


def convert(config: ConvertConfig) -> int:
    from robolearn.datasets.format.assumptions import is_assumption
    from robolearn.datasets.tools.convert import convert as write

    done = write(config.source, config.target, to=config.to, reading=config.reading)
    print(f"{config.target}: {count(done.episodes, 'episode')}")
    for line in done.lost:
        print(f"  {'assumed' if is_assumption(line) else 'not kept as it was'}: {line}")
    return 0


def trim(config: TrimConfig) -> int:
    from robolearn.datasets.tools.revise import Idle, trim_idle

    idle = Idle(still=config.still, keys=config.keys, margin=config.margin)
    cuts, notes = trim_idle(config.path, config.output, idle, config.reading)
    for name, (first, last) in cuts.items():
        print(f"{name}: steps {first} to {last} are kept")
    if not cuts:
        print("no episode stands still at an end")
    _print_lines("note", notes)
    return _written(config.output)


def _print_lines(title: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{title}: {line}")


def _odd(dataset: Any) -> list[str]:
    """Return what training would refuse or warn of."""
    from robolearn.datasets.examine import check_trainable
    from robolearn.errors import DatasetError

    try:
        return list(check_trainable(dataset)) if len(dataset) else []
    except DatasetError as error:
        return [str(error)]


def _limits(spec: Any) -> str:
    pairs = [f"{low:g} to {high:g}" for low, high in zip(spec.low, spec.high)]
    return pairs[0] if len(set(pairs)) == 1 else ", ".join(pairs)


def _written(path: str) -> int:
    from robolearn.datasets.dataset import Dataset

    with Dataset(path) as dataset:
        print(f"{path}: {count(len(dataset), 'episode')}, {count(int(sum(dataset.lengths)), 'step')}")
    return 0


def _modes(dataset: Any, index: int) -> dict[int, int]:
    """Steps per action mode of an episode."""
    import numpy as np

    values, counts = np.unique(dataset.arrays(index, ["action_modes"])["action_modes"], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def _named(modes: Counter[int]) -> dict[str, int]:
    from robolearn.specs import ActionMode

    known = {int(mode): mode.name.lower() for mode in ActionMode}
    return {known.get(mode, f"mode {mode}"): modes[mode] for mode in sorted(modes)}


def _environment(env_args: Mapping[str, Any]) -> str:
    """Return the environment's name with what its constructor was told: `Meta-World/MT1, env_name pick-place-v3`."""
    words = (f"{name} {value}" for name, value in dict(env_args.get("env_kwargs") or {}).items())
    return ", ".join([environment_name(env_args), *words])


def _spread(lengths: Any) -> str:
    return f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.0f}" if len(lengths) else "none"


def _counts(values: Any) -> str:
    return ", ".join(f"{name} ({n})" for name, n in Counter(values).most_common()) or "none"


def _seeds(seeds: list[int]) -> str:
    distinct = len(set(seeds))
    again = f", {len(seeds) - distinct} used again" if distinct < len(seeds) else ""
    return f"{min(seeds)} to {max(seeds)}, {distinct} distinct{again}" if seeds else "none"


def _episode_table(dataset: Any) -> Any:
    from rich.table import Table

    table = Table("episode", "steps", "success", "source", "round", "seed", "operator", "started")
    for name, steps, known in zip(dataset.episodes, dataset.lengths, dataset.info):
        success = "yes" if known.success else "no"
        row = (name, steps, success, known.source, known.round, known.seed, known.operator, known.started_at)
        table.add_row(*map(str, row))
    return table


def _episode_lines(dataset: Any) -> str:
    rows = []
    for name, steps, known in zip(dataset.episodes, dataset.lengths, dataset.info):
        success = "success" if known.success else "no success"
        source = known.source + (f" round {known.round}" if known.round else "")
        rows.append((name, f"{count(steps, 'step')}, {success}, {source}, seed {known.seed}, {known.operator}"))
    return "\n".join(two_columns(rows, terminal_width()))


VERBS: dict[str, tuple[type, Callable[[Any], int], str]] = {
    "info": (InfoConfig, info, "what a dataset holds"),
    "validate": (ValidateConfig, validate, "find every fault, its place and its remedy"),
    "repair": (RepairConfig, repair, "recover an interrupted recording"),
    "merge": (MergeConfig, merge, "several files into a new one"),
    "split": (SplitConfig, split, "one file into several new ones"),
    "delete": (DeleteConfig, delete, "a new file without some episodes"),
    "filter": (FilterConfig, filter, "a new file with the episodes that meet conditions"),
    "trim": (TrimConfig, trim, "a new file without the idle steps at the ends of episodes"),
    "convert": (ConvertConfig, convert, "from and to robomimic and Minari, from ALOHA"),
}
