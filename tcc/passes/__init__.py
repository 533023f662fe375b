# SPDX-License-Identifier: Apache-2.0
"""Passes: IR to IR. `graph/`, `lower/` and `kernel/` hold one pass a file; see `tcc.passes.base`."""
