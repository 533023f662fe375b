# SPDX-License-Identifier: Apache-2.0
"""The CUDA target: CUDA C++ templates and their compilation with NVRTC."""
