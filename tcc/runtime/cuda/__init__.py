# SPDX-License-Identifier: Apache-2.0
"""Engines on NVIDIA GPUs, over the driver API: devices, memory, launches, CUDA graphs, timing.

Importing this package loads nothing of CUDA; the driver is looked for when the first device is asked for.
"""
