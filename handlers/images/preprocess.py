"""What the model expects of an image: resize, crop, scale. Equal to timm's evaluation transform, without torch.

The geometry follows timm's ``transforms_imagenet_eval`` and torchvision's ``Resize`` and
``CenterCrop``, including how they round. An image with another number of channels than a picture is an array, each
channel of which goes the same way in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from elude.handlers.errors import BundleError, ImageError

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_MODES = ("center", "center-floor", "squash", "border")
_MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
_LARGEST_CROP = 2.0
_MAX_STRETCH = (
    100  # longest side over shortest: beyond it, resizing the short side would make an image too large to hold
)


@dataclass(frozen=True)
class Preprocess:
    """From an image to the model's input.

    Attributes:
        input_size: (channels, H, W): three for colour, one for grey; any other number for arrays.
        interpolation: nearest, bilinear, bicubic, box, hamming or lanczos.
        crop_pct: the part of the resized image that the crop keeps; above 1 the crop has a black border.
        crop_mode: ``center``, ``squash`` or ``border``, as in timm; ``center-floor`` is ``center`` with an odd margin
            rounded down, as in transformers.
        mean: per channel, for values in [0, 1]; for those of an array as ``elude.handlers.images.arrays`` gives them.
        std: per channel, likewise.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        wrong = ""
        if len(self.input_size) != 3 or min(self.input_size) < 1:
            wrong = f"input_size {self.input_size} is not (channels, H, W)"
        elif self.interpolation not in _RESAMPLING:
            wrong = f"interpolation {self.interpolation!r} is none of {', '.join(_RESAMPLING)}"
        elif self.crop_mode not in _CROP_MODES:
            wrong = f"crop_mode {self.crop_mode!r} is none of {', '.join(_CROP_MODES)}"
        elif not 0 < self.crop_pct <= _LARGEST_CROP:
            wrong = f"crop_pct {self.crop_pct} is not in (0, {_LARGEST_CROP}]"
        elif len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            wrong = f"mean {self.mean} and std {self.std} must be one number per channel, std positive"
        if wrong:
            raise BundleError(f"Preprocessing cannot be used: {wrong}.")

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return self.input_size[0]

    @property
    def takes_pictures(self) -> bool:
        """Whether an image file holds what the model takes: grey or colour, and not an array of more channels."""
        return self.channels in _MODES

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Any) -> Preprocess:
        """From a JSON object.

        Raises:
            BundleError: a field is missing, unknown or of the wrong type.
        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(value, dict) or set(value) != names:
            raise BundleError(f"preprocess.json must be an object with the fields {', '.join(sorted(names))}.")
        try:
            return cls(
                tuple(int(v) for v in value["input_size"]),  # type: ignore[arg-type]
                str(value["interpolation"]),
                float(value["crop_pct"]),
                str(value["crop_mode"]),
                tuple(float(v) for v in value["mean"]),
                tuple(float(v) for v in value["std"]),
            )
        except (TypeError, ValueError) as error:
            raise BundleError(f"preprocess.json: {error}.") from error

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop a picture.

        Returns:
            uint8 (H, W, channels).

        Raises:
            ImageError: the image is more than 100 times longer than wide, or the other way round.
        """
        self.check_size(image.size)
        mode = _MODES[self.channels]
        image = image if image.mode == mode else image.convert(mode)
        fill = tuple(round(255 * v) for v in self.mean) if self.crop_mode == "border" else (0,) * self.channels
        pixels = np.asarray(self._fitted(image, fill))
        return pixels.reshape(*pixels.shape[:2], self.channels)

    def bands(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Resize and crop an array of any number of channels, one channel after the other.

        Args:
            values: (height, width, channels).

        Returns:
            float32 (H, W, channels).

        Raises:
            ImageError: as ``pixels``.
        """
        self.check_size((values.shape[1], values.shape[0]))
        fills = self.mean if self.crop_mode == "border" else (0.0,) * self.channels
        bands = [
            np.asarray(self._fitted(Image.fromarray(np.ascontiguousarray(values[..., channel])), (fill,)), np.float32)
            for channel, fill in enumerate(fills)
        ]
        return np.stack(bands, axis=-1)

    def check_size(self, size: tuple[int, int], name: str = "image") -> None:
        """ImageError if an image of that (width, height) is more than 100 times longer one way than the other."""
        if max(size) > _MAX_STRETCH * min(size):
            raise ImageError(
                f"{name} is {size[0]}×{size[1]}: more than {_MAX_STRETCH} times longer one way than the other.",
                "Cut it, or pad it.",
            )

    def normalise(self, pixels: NDArray[np.uint8 | np.float32]) -> NDArray[np.float32]:
        """uint8 or float32 (..., H, W, channels), from ``pixels`` or ``bands`` → float32 (..., channels, H, W), the
        model's input.
        """
        return self._scaled(unit_of(pixels))

    def normalise_unit(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (..., channels, H, W) in [0, 1] → float32 of the same shape, the model's input."""
        return self._scaled(np.array(unit, np.float32, order="C"))

    def _scaled(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        """In place, as copies of a batch cost more than the arithmetic."""
        unit -= self._mean
        unit /= self._std
        return unit

    @cached_property
    def _mean(self) -> NDArray[np.float32]:
        return np.array(self.mean, np.float32)[:, None, None]

    @cached_property
    def _std(self) -> NDArray[np.float32]:
        return np.array(self.std, np.float32)[:, None, None]

    def _fitted(self, image: Image.Image, fill: tuple[float, ...]) -> Image.Image:
        height, width = self._resized(image.height, image.width)
        if image.size != (width, height):
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        return _centre(image, self.input_size[1:], fill, floor=self.crop_mode == "center-floor")

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        target_h, target_w = (math.floor(side / self.crop_pct) for side in self.input_size[1:])
        if self.crop_mode == "squash":
            return target_h, target_w
        if self.crop_mode.startswith("center") and target_h == target_w:
            if width <= height:
                return int(target_w * height / width), target_w
            return target_h, int(target_h * width / height)
        ratios = height / target_h, width / target_w
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))


def unit_of(pixels: NDArray[np.uint8 | np.float32]) -> NDArray[np.float32]:
    """(..., H, W, channels) → a new float32 (..., channels, H, W): uint8 in [0, 1], float32 as it is."""
    unit = np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32)
    if pixels.dtype == np.uint8:
        unit /= np.float32(255)
    return unit


def _centre(image: Image.Image, size: Sequence[int], fill: tuple[float, ...], *, floor: bool) -> Image.Image:
    """Cut ``size`` (H, W) from the centre, padding with ``fill`` where the image is smaller."""
    height, width = size
    if image.size == (width, height):
        return image
    extra_w, extra_h = max(0, width - image.width), max(0, height - image.height)
    if extra_w or extra_h:
        border = (extra_w // 2, extra_h // 2, (extra_w + 1) // 2, (extra_h + 1) // 2)
        colour: Any = fill if len(fill) > 1 else fill[0]  # mode F takes a float
        image = ImageOps.expand(image, border, colour)
    whole = math.floor if floor else round
    top, left = whole((image.height - height) / 2.0), whole((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))
