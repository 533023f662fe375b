# SPDX-License-Identifier: Apache-2.0
"""Resampling of images: `graph.resize_nearest` moves elements, `graph.resize` interpolates."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tcc import reference as _ref
from tcc.ir.declare import BOOLEAN, DIMS, FLOAT, FLOATS, INTS, Attr, Operand, Result, one_of, register
from tcc.ir.expr import Dim
from tcc.ir.graph.base import Array, GraphOp, check_axes, check_dims, check_length, dense, present, static_ints
from tcc.ir.types import Type
from tcc.reference.resize import axis_taps as axis_taps
from tcc.reference.resize import nearest_taps as nearest_taps
from tcc.reference.resize import resized_extents as _resized_extents
from tcc.reference.resize import source_coordinates as source_coordinates

COORDINATES = one_of(
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)


class ResizeBase(GraphOp):
    """Base of the resizes of `axes` of x, by `scales` or to `sizes` (one of them, one value an axis; the other none).

    `coordinate_mode` maps an output position to a source coordinate, `tf_crop_and_resize` within `roi` (starts, then
    ends, as fractions of the axes) with `extrapolation` outside of x. `policy` other than stretch keeps the aspect
    ratio of `sizes`. The names and meanings of the words are those of ONNX Resize.
    """

    x = Operand()
    axes = Attr(INTS)
    scales = Attr(FLOATS, None)
    sizes: Attr[tuple[Dim, ...]] = Attr(DIMS, None)
    coordinate_mode = Attr(COORDINATES, "half_pixel")
    policy = Attr(one_of("stretch", "not_larger", "not_smaller"), "stretch")
    roi = Attr(FLOATS, ())
    extrapolation = Attr(FLOAT, 0.0)
    y = Result()

    @property
    def crop(self) -> tuple[tuple[float, float], ...] | None:
        """(start, end) of the roi for each of `axes`; None unless it is used."""
        if self.coordinate_mode != "tf_crop_and_resize":
            return None
        n = len(self.axes)
        return tuple((self.roi[i], self.roi[n + i]) for i in range(n))

    def axis_scales(self) -> tuple[float, ...]:
        """The scale of each of `axes`, given or derived; x must have static extents there."""
        return self._resolve()[1]

    def _resolve(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        shape = self.operand_type(0).shape
        full = [d if isinstance(d, int) else 0 for d in shape]
        for a in self.axes:
            full[a] = static_ints(self, (shape[a],))[0]
        given: tuple[Dim, ...] | None = self.attrs["sizes"]
        sizes = None if given is None else static_ints(self, given)
        scales: tuple[float, ...] | None = self.attrs["scales"]
        return _resized_extents(tuple(full), self.axes, scales, sizes, self.policy, self.crop)

    def infer(self) -> Sequence[Type]:
        t = self.operand_type(0)
        check_axes(self, self.axes, t.rank)
        sizes: tuple[Dim, ...] | None = self.attrs["sizes"]
        scales: tuple[float, ...] | None = self.attrs["scales"]
        if (sizes is None) == (scales is None):
            raise self.fail("it needs exactly one of scales and sizes")
        check_length(self, sizes if sizes is not None else scales or (), len(self.axes), "scales or sizes")
        if scales is not None and any(s <= 0 for s in scales):
            raise self.fail(f"scales {list(scales)} must be positive")
        if self.coordinate_mode == "tf_crop_and_resize":
            check_length(self, self.roi, 2 * len(self.axes), "roi")
        shape = list(t.shape)
        if all(isinstance(shape[a], int) for a in self.axes) and all(isinstance(s, int) for s in sizes or ()):
            extents: Sequence[Dim] = self._resolve()[0]
        elif sizes is not None and self.policy == "stretch":
            extents = sizes
        elif scales is not None and self.crop is None:
            extents = [self._scaled(shape[a], s) for a, s in zip(self.axes, scales, strict=True)]
        else:
            raise self.fail(f"{t} has free dims where it is resized; bind them with --shape")
        for a, e in zip(self.axes, extents, strict=True):
            shape[a] = e
        check_dims(self, shape, "the resized shape")
        return (dense(shape, t.dtype),)

    def _scaled(self, extent: Dim, scale: float) -> Dim:
        ratio = Fraction(scale).limit_denominator(64)
        if float(ratio) != scale:
            raise self.fail(f"the free dim {extent} times {scale} is no expression; bind it with --shape")
        return extent * ratio.numerator // ratio.denominator

    def resized(self, x: Array, **options: object) -> Array:
        given: tuple[Dim, ...] | None = self.attrs["sizes"]
        return _ref.resize(
            x,
            np.array(self.roi, np.float32) if self.roi else None,
            self.attrs["scales"],
            None if given is None else static_ints(self, given),
            coordinate_transformation_mode=self.coordinate_mode,
            extrapolation_value=self.extrapolation,
            axes=self.axes,
            keep_aspect_ratio_policy=self.policy,
            **options,  # pyright: ignore[reportArgumentType]
        )


@register
class ResizeNearest(ResizeBase):
    """x read at the nearest source position; `nearest_mode` says which of two. ONNX Resize, nearest; Upsample."""

    name = "graph.resize_nearest"
    category = "index"
    nearest_mode = Attr(
        one_of("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "round_prefer_floor",
    )

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        return (self.resized(present(arrays[0]), mode="nearest", nearest_mode=self.nearest_mode),)


@register
class Resize(ResizeBase):
    """x interpolated linearly or cubically, axis by axis; `antialias` widens the filter when shrinking.

    ONNX Resize, linear and cubic. `axis_taps` gives the positions and weights of an axis.
    """

    name = "graph.resize"
    category = "resize"
    mode = Attr(one_of("linear", "cubic"))
    cubic_coeff = Attr(FLOAT, -0.75)
    exclude_outside = Attr(BOOLEAN, False)
    antialias = Attr(BOOLEAN, False)

    def evaluate(self, *arrays: Array | None) -> tuple[Array, ...]:
        y = self.resized(
            present(arrays[0]),
            mode=self.mode,
            cubic_coeff_a=self.cubic_coeff,
            exclude_outside=int(self.exclude_outside),
            antialias=int(self.antialias),
        )
        return (y,)
