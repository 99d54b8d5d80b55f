"""Ready-made samples from a file or folder: generated elsewhere, or rows that need no protection."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.paths import find_data
from fedimb.data.sources.files import with_progress
from fedimb.data.sources.npz_file import WrongSize, check_size
from fedimb.data.sources.pictures import CHANNELS, decode
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.generation.base import Generator, Progress
from fedimb.generation.examples import Examples, check_conditions, check_examples, images_expected
from fedimb.registry import register

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@register("generator", "external_dir")
class ExternalDir(Generator):
    """Serves ready-made samples from a file or folder; there is nothing to train.

    Each row is used at most once per call of `sample`. As nothing is trained, no real rows are needed beside them.

    Args:
        n_classes, n_domains, shape: given by fedimb.
        path: an .npz with x [n, *shape] (uint8: divided by 255; float: as it is), y [n] and, if known, d [n]; or a
            folder with one folder of images per class, named like the class. See `fedimb.data.paths`.
        class_names: [n_classes] (given by fedimb); None: folders are named 0, 1, ...

    Raises:
        DataError: nothing there, or rows of another size, number of channels, class or domain (names the file).
        ConfigError: a folder of images for data that are not images, or Pillow is not installed.
    """

    trainable = False
    rows: Examples

    def __init__(
        self,
        n_classes: int,
        n_domains: int,
        shape: tuple[int, ...],
        *,
        path: str,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(n_classes, n_domains, shape)
        place = find_data(path)
        self._names = class_names or tuple(str(c) for c in range(n_classes))
        self.rows, known = self._folder(place) if place.is_dir() else _archive(place, self.shape)
        self._place = place
        try:
            check_examples(self.rows, n_classes, self.shape)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        if known and not bool(((self.rows.d >= 0) & (self.rows.d < n_domains)).all()):
            raise DataError(f"{place}: d holds domain ids outside 0..{n_domains - 1}: number them as the data do")
        self._usable = torch.ones(len(self.rows.y), dtype=torch.bool)
        self.class_seen[self.rows.y] = 1.0
        if known:
            self.domain_seen[self.rows.d] = 1.0
            self.cell_seen[self.rows.y, self.rows.d] = 1.0

    def sample(self, y: Tensor, d: Tensor, generator: torch.Generator, progress: Progress | None = None) -> Tensor:
        """Return rows of the given classes and domains, without replacement within one call.

        For a domain the file does not have, and for every domain if the file has none, rows are drawn from all
        remaining rows of the class. Arguments and result: see `Generator.sample`; nothing is clipped.

        Raises:
            DataError: fewer rows of a class and domain than requested; names each of them.
        """
        check_conditions(y, d, self.n_classes, null=False)
        d = self._domain_ids(d)
        d = torch.where(self.domain_seen[d] > 0, d, self.n_domains)
        free = self._usable.clone()
        taken = torch.empty(len(y), dtype=torch.int64)
        short: list[str] = []
        # Sorted, so "any domain" (the highest id) comes last and takes no row that a specific domain needs.
        for c, domain in torch.unique(torch.stack([y, d], 1), dim=0).tolist():
            asked = ((y == c) & (d == domain)).nonzero().flatten()
            fits = free & (self.rows.y == c)
            if domain < self.n_domains:
                fits &= self.rows.d == domain
            pool = fits.nonzero().flatten()
            if len(pool) < len(asked):
                where = f" of domain {domain}" if domain < self.n_domains else ""
                short.append(f"class '{self._names[c]}'{where}: {len(asked)} requested, {len(pool)} available")
                continue
            taken[asked] = pool[torch.randperm(len(pool), generator=generator)[: len(asked)]]
            free[taken[asked]] = False
        if short:
            raise DataError(f"{self._place} has too few examples: {'; '.join(short)}. Add some, or plan fewer")
        if progress is not None:
            progress(len(y))
        return self.rows.x[taken]

    def keep_only(self, good: Tensor) -> None:
        """Serve only rows that are ``good``: bool [rows]."""
        self._usable = good.clone()

    def losses_at(self, x: Tensor, y: Tensor, d: Tensor, level: Tensor | float, generator: torch.Generator) -> Tensor:
        """Always raises ConfigError: there is no model that has a loss."""
        raise ConfigError("generator 'external_dir' serves ready-made rows: it has no model with a loss")

    def draw_levels(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, generator=generator)

    def _folder(self, place: Path) -> tuple[Examples, bool]:
        """(examples, whether their domains are known)."""
        channels, height, width = images_expected("external_dir", self.shape)
        mode = next((m for m, n in CHANNELS.items() if n == channels), None)
        if mode is None:
            raise ConfigError(f"generator 'external_dir' reads images of 1 or 3 channels, not {channels}: use an .npz")
        files: list[tuple[Path, int]] = []
        for folder in sorted(p for p in place.iterdir() if p.is_dir()):
            if folder.name not in self._names:
                raise DataError(f"{folder} is not named like a class.{nearest(folder.name, self._names)}")
            found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _PICTURES)
            files += [(file, self._names.index(folder.name)) for file in found]
        if not files:
            raise DataError(f"{place} holds no images: expected {place}/<class>/*.png, or give an .npz")
        pixels = np.empty((len(files), channels, height, width), np.uint8)
        for row, (file, _) in enumerate(with_progress(files, f"images of {place.name}")):
            try:
                image = decode(file.read_bytes(), mode, None)
            except DataError as error:
                raise DataError(f"{file} {error}") from error
            if image.shape != pixels.shape[1:]:
                raise DataError(f"{file} is {image.shape}, the data are {pixels.shape[1:]}: give all the same size")
            pixels[row] = image
        y = torch.tensor([c for _, c in files])
        return Examples(_floats(pixels).reshape(-1, *self.shape), y, torch.zeros_like(y)), False


def _archive(file: Path, shape: tuple[int, ...]) -> tuple[Examples, bool]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            present = [key for key in ("x", "y", "d") if key in archive]
            for key in present:
                check_size(archive.zip, key)
            arrays: dict[str, NDArray[Any]] = {key: archive[key] for key in present}
        missing = [key for key in ("x", "y") if key not in arrays]
    except (OSError, ValueError, TypeError, WrongSize, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as an .npz of x and y ({error})") from error
    if missing:
        raise DataError(
            f"{file} lacks {' and '.join(missing)}: expected x [n, {str(list(shape))[1:]}, y and, if known, d"
        )
    for key in ("y", "d"):
        if key in arrays and arrays[key].dtype.kind not in "iu":
            raise DataError(f"{file}: {key} is {arrays[key].dtype}, expected whole numbers")
    y = torch.from_numpy(arrays["y"].astype(np.int64))
    d = torch.from_numpy(arrays["d"].astype(np.int64)) if "d" in arrays else torch.zeros_like(y)
    return Examples(_floats(arrays["x"]), y, d), "d" in arrays


def _floats(x: NDArray[np.generic]) -> Tensor:
    floats = torch.from_numpy(x.astype(np.float32))
    return floats / 255 if x.dtype == np.uint8 else floats
