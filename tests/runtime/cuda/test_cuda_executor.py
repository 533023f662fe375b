# SPDX-License-Identifier: Apache-2.0
"""The CUDA executor's logic on the fake driver: the shared cases, and what only the fake can see."""

from tests.runtime.cuda.cases import *  # noqa: F403
