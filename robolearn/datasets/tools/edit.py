"""Making new dataset files from old ones: merge, split, delete, filter. The input is never touched.

Episodes are copied as stored (frames stay compressed, unknown datasets and attributes come along); what refers to
episodes by name (masks, the views under `next_obs`) is written for the new names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.examine import check_limits
from robolearn.datasets.format import checked as safe, probe
from robolearn.datasets.format.episode_file import EpisodeFile, check_choice
from robolearn.datasets.format.groups import finish_file, write_masks, write_models
from robolearn.datasets.format.schema import RECORDING, demo_name, demo_number
from robolearn.datasets.recording.durable_files import check_no_recording, hdf5_file, publish
from robolearn.datasets.recording.index import OWN_GROUPS
from robolearn.datasets.tools import convert
from robolearn.datasets.tools.source import Source
from robolearn.errors import DatasetError, hint
from robolearn.specs import EpisodeInfo


def merge(paths: Sequence[str | Path], output: str | Path, reading: Reading = NOTHING) -> list[str]:
    """Join all episodes of several files of the same specs, in order; the first file's keep their names.

    Masks of the same name are united. Files of ours are copied as stored; where `reading` changes them, or layouts
    differ, all are read and written anew. Returns notes on what could not be kept as it was.

    Raises DatasetError where files differ in names, shapes, units or control rate, or data lies outside its limits.
    """
    if not paths:
        raise DatasetError("expected at least one dataset to merge, received none")
    with Dataset(list(paths), reading=reading) as dataset:
        check_limits(dataset)
        files = dataset.files
        notes = [f"{first} and {second} are the same episode" for first, second in duplicates(dataset)]
        if reading.changes or len({file.ours for file in files}) > 1:
            return notes + _written_anew(files, Path(output), reading)
        names = [{name: name for name in files[0].demos()}]
        free = 1 + max((demo_number(name) or 0 for name in names[0]), default=-1)
        for file in files[1:]:
            names.append({name: demo_name(free + i) for i, name in enumerate(file.demos())})
            free += len(names[-1])
        return notes + assemble(Path(output), list(zip(files, names)))


def duplicates(dataset: Dataset) -> list[tuple[str, str]]:
    """Return pairs of episodes with the same actions and the same low-dimensional observations, to the last bit."""
    first: dict[bytes, str] = {}
    pairs: list[tuple[str, str]] = []
    names = ["actions", *(f"obs/{key}" for key in dataset.low_dim_keys())]
    for index, name in enumerate(dataset.episodes):
        content = hashlib.sha256()
        for array in dataset.arrays(index, names).values():
            content.update(np.ascontiguousarray(array).tobytes())
        digest = content.digest()
        if digest in first:
            pairs.append((first[digest], name))
        first.setdefault(digest, name)
    return pairs


def _written_anew(files: Sequence[EpisodeFile], output: Path, reading: Reading) -> list[str]:
    """Read episodes as `reading` asks for, and write them as a file of ours; returns what was assumed and lost."""
    check_output(output, *files)
    sources = [convert.open_source(file.path, file.own_reading(reading)) for file in files]
    masks: dict[str, list[int]] = {}
    models: dict[str, bytes] = {}
    start = 0
    for source in sources:
        for name, indices in source.masks.items():
            masks.setdefault(name, []).extend(start + i for i in indices)
        models |= source.models
        start += source.count
    episodes = chain.from_iterable(source.episodes for source in sources)
    united = {name: tuple(indices) for name, indices in masks.items()}
    convert.write(Source(sources[0].header, episodes, start, models, united), output)
    return list(dict.fromkeys(line for source in sources for line in source.lost))


def split(path: str | Path, outputs: Mapping[Path, Sequence[str]], reading: Reading = NOTHING) -> list[str]:
    """Write one new file per entry, with the named episodes, which keep their names; returns notes."""
    notes: list[str] = []
    with ExitStack() as stack:
        file = open_file(stack, path, reading)
        for demos in outputs.values():
            _check_names(file, demos)
        for output in outputs:
            check_output(output, file)
        for output, demos in outputs.items():
            notes += _keep(file, output, [name for name in file.demos() if name in set(demos)], reading)
    return list(dict.fromkeys(notes))


def delete(path: str | Path, output: str | Path, demos: Sequence[str], reading: Reading = NOTHING) -> list[str]:
    """Write a new file without the named episodes, which may be damaged; the others keep their names. Returns notes."""
    with ExitStack() as stack:
        file = open_file(stack, path, replace(reading, exclude=(*reading.exclude, *demos)))
        _check_names(file, [*demos, *reading.exclude])
        if not file.demos():
            raise DatasetError(f"these are all episodes of {file.path}; none would be left, so no file is written")
        return _keep(file, Path(output), file.demos(), reading)


def _keep(file: EpisodeFile, output: Path, demos: Sequence[str], reading: Reading) -> list[str]:
    """Write some episodes of one file: as stored, or anew where `reading` changes them; returns notes."""
    if not reading.changes:
        return assemble(output, [(file, {name: name for name in demos})])
    left_out = tuple(name for name in file.all_demos if name not in set(demos))
    chosen = replace(reading, exclude=left_out)
    with Dataset(file.path, reading=chosen) as dataset:
        return _written_anew(dataset.files, output, chosen)


def filter(
    path: str | Path,
    output: str | Path,
    *,
    mask: str | None = None,
    success: bool | None = None,
    source: str | None = None,
    operator: str | None = None,
    round: int | None = None,
    interrupted: bool | None = None,
    min_steps: int = 1,
    max_steps: int | None = None,
    reading: Reading = NOTHING,
) -> list[str]:
    """Write a new file with the episodes that meet every given condition; returns notes.

    Raises DatasetError, and writes nothing, where there is none.
    """
    wanted = {"success": success, "source": source, "operator": operator, "round": round, "interrupted": interrupted}
    with ExitStack() as stack:
        file = open_file(stack, path, reading)
        check_choice([file], reading)
        kept: list[str] = []
        for name in file.demos(mask):
            info, steps = file.info(name), file.steps(name)
            long_enough = min_steps <= steps <= (steps if max_steps is None else max_steps)
            if long_enough and _matches(info, wanted):
                kept.append(name)
        if not kept:
            raise DatasetError(
                f"no episode of {file.path} (it has {len(file.demos())}) meets all conditions, so no file is "
                f"written; `{hint('dataset', 'info', file.path, '--episodes')}` lists what they are"
            )
        return _keep(file, Path(output), kept, reading)


def _matches(info: EpisodeInfo, wanted: Mapping[str, object]) -> bool:
    return all(value is None or getattr(info, name) == value for name, value in wanted.items())


def open_file(stack: ExitStack, path: str | Path, reading: Reading = NOTHING) -> EpisodeFile:
    """Open a file of episodes until `stack` closes it."""
    probe.check(Path(path))
    file = EpisodeFile(Path(path), reading)
    stack.callback(file.close)
    return file


def _check_names(file: EpisodeFile, demos: Sequence[str]) -> None:
    known = file.all_demos
    unknown = sorted(set(demos) - set(known))
    if unknown:
        raise DatasetError(f"{file.path} has no episodes {unknown}; it has {len(known)} from {list(known[:1])}")


def check_output(output: Path, *inputs: EpisodeFile) -> None:
    """Raise DatasetError unless `output` is a new name in a folder that is there."""
    if output.exists():
        raise DatasetError(f"{output} exists already; editing always writes a new file: choose another name")
    check_no_recording(output)
    if not output.parent.is_dir():
        raise DatasetError(f"the folder {output.parent} does not exist; make it first")
    assert all(output.resolve() != file.path.resolve() for file in inputs)


def assemble(
    output: Path,
    sources: Sequence[tuple[EpisodeFile, Mapping[str, str]]],
    *,
    masks: Mapping[str, Sequence[str]] | None = None,
    success: Mapping[str, bool] | None = None,
) -> list[str]:
    """Write a new file of the episodes {old name: new name} of each source; returns notes.

    Args:
        masks: by new names, instead of the sources' own.
        success: by new names, what is not as recorded.
    """
    check_output(output, *(file for file, _ in sources))
    temporary = output.with_name(output.name + ".tmp")
    notes: list[str] = []
    try:
        with hdf5_file(temporary) as (target, guard):
            data = target.create_group("data")
            found: dict[str, list[str]] = {}
            models: dict[str, bytes] = {}
            for file, names in sources:
                notes += _copy_others(file, target)
                _add_models(models, file)
                for old, new in names.items():
                    with file.group(old) as group:
                        group.file.copy(group, data, new)
                    copied = safe.group(data, new)
                    if "num_samples" not in copied.attrs:
                        copied.attrs["num_samples"] = np.int64(file.steps(old))
                    _rename_views(safe.group(data, new), f"/data/{old}", f"/data/{new}")
                    guard.check()
                for name, demos in file.masks.items():
                    found.setdefault(name, []).extend(names[demo] for demo in demos if demo in names)
            for name, value in (success or {}).items():
                safe.group(data, name).attrs["success"] = np.bool_(value)
            write_masks(target, found if masks is None else masks)
            write_models(target, models)
            finish_file(target)
        publish(temporary, output)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return notes


def _copy_others(file: EpisodeFile, target: h5py.File) -> list[str]:
    """Copy attributes and unknown objects of a source; what an earlier source has brought stays, and is noted."""
    notes: list[str] = []
    source = file.hdf5
    for name in source.attrs:
        if name != RECORDING:
            notes += _copy_attr(file, source, target, name)
    for name in source["data"].attrs:
        if name != "total":
            notes += _copy_attr(file, source["data"], target["data"], name)
    for name in safe.names(source):
        if name in OWN_GROUPS:
            continue
        if name in target:
            notes.append(f"{name} of {file.path} was left out: an earlier file has one of that name")
            continue
        with file.follow(source, name) as found:
            found.file.copy(found, target, name)
    return notes


def _copy_attr(file: EpisodeFile, source: h5py.HLObject, target: h5py.HLObject, name: str) -> list[str]:
    """Copy one attribute, type and all."""
    with safe.reading(f"{safe.Place(source)} attribute {name}"):
        if name in target.attrs:
            same = source.attrs[name] == target.attrs[name]
            return (
                []
                if bool(getattr(same, "all", lambda: same)())
                else [f"attribute {name} of {file.path}:{source.name} was left out: an earlier file has another value"]
            )
        attr = source.attrs.get_id(name)
        if isinstance(source.attrs[name], h5py.Empty):
            target.attrs[name] = source.attrs[name]
        else:
            target.attrs.create(name, source.attrs[name], dtype=attr.dtype)
        return []


def _add_models(models: dict[str, bytes], file: EpisodeFile) -> None:
    """Take in a source's models; the same name must mean the same model."""
    for name, content in file.models().items():
        if models.setdefault(name, content) != content:
            raise DatasetError(f"models/{name} of {file.path} differs from the one of the same name in an earlier file")


def _rename_views(group: h5py.Group, old: str, new: str) -> None:
    """Let virtual datasets inside a copied episode map to its new name."""
    if old == new:
        return
    views: list[str] = []
    group.visititems(lambda name, obj: views.append(name) if isinstance(obj, h5py.Dataset) and obj.is_virtual else None)
    for name in views:
        view = group[name]
        assert isinstance(view, h5py.Dataset)
        sources, attrs = view.virtual_sources(), dict(view.attrs)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        for source in sources:
            path = source.dset_name
            path = new + path[len(old) :] if path.startswith(old + "/") else path
            plist.set_virtual(source.vspace, source.file_name.encode(), path.encode(), source.src_space)
        space, kind = view.id.get_space(), view.id.get_type()
        del group[name]
        made = h5py.h5d.create(group.id, name.encode(), kind, space, plist)
        for key, value in attrs.items():
            h5py.Dataset(made).attrs[key] = value
