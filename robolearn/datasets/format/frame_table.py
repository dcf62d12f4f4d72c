"""Random access to compressed frames without HDF5 in the way: chunk addresses once, then plain reads, in any thread."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.groups import decompress
from robolearn.errors import DatasetError
from robolearn.specs import ArraySpec


@dataclass(frozen=True)
class FrameTable:
    """The place in its file of each frame of one observation key of one episode."""

    path: Path
    where: str
    """The dataset's place, for messages."""
    spec: ArraySpec
    offsets: np.ndarray
    """(T,) int64 bytes from the file's start."""
    sizes: np.ndarray
    """(T,) uint32 bytes."""
    fd: int | None = None
    """The open file, where its owner keeps it open as long as this table; else it is opened for every frame."""

    @classmethod
    def of(cls, data: h5py.Dataset, spec: ArraySpec, fd: int | None = None) -> FrameTable | None:
        """Return the table of a checked dataset, or None where its frames are not one deflate chunk each."""
        plist = data.id.get_create_plist()
        deflated = plist.get_nfilters() == 1 and plist.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
        if data.chunks != (1, *spec.shape) or data.dtype != np.dtype(spec.dtype) or not deflated:
            return None
        if data.file.userblock_size:
            return None
        offsets, sizes = np.zeros(len(data), np.int64), np.zeros(len(data), np.uint32)
        filtered = True

        def note(chunk: h5py.h5d.StoreInfo) -> None:
            nonlocal filtered
            offsets[chunk.chunk_offset[0]], sizes[chunk.chunk_offset[0]] = chunk.byte_offset, chunk.size
            filtered &= chunk.filter_mask == 0

        data.id.chunk_iter(note)
        path = Path(data.file.filename)
        if (offsets + sizes > os.path.getsize(path)).any() or (sizes == 0).any():
            raise DatasetError(f"{safe.Place(data)} has frames that lie outside of the file; it was cut off")
        return cls(path, str(safe.Place(data)), spec, offsets, sizes, fd) if filtered else None

    def read(self, step: int) -> np.ndarray:
        """Return (...) one frame, read-only. Raises DatasetError where its bytes are damaged."""
        try:
            if self.fd is not None:
                packed = os.pread(self.fd, int(self.sizes[step]), int(self.offsets[step]))
            else:
                with self.path.open("rb", buffering=0) as file:
                    packed = os.pread(file.fileno(), int(self.sizes[step]), int(self.offsets[step]))
        except OSError as error:
            raise DatasetError(f"{self.where}: step {step}: {error.strerror}") from None
        try:
            return decompress(packed, self.spec)
        except DatasetError as error:
            raise DatasetError(f"{self.where}: step {step}: {error}") from None
