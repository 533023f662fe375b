# SPDX-License-Identifier: Apache-2.0
"""The commands tcc, tcc-opt, tcc-run and tcc-bench."""
