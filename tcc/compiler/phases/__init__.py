# SPDX-License-Identifier: Apache-2.0
"""Passes that need the code generators: choosing schedules and packing constants. Importing registers them."""

from tcc.compiler.phases import pack_constants, schedule

__all__ = ["pack_constants", "schedule"]
