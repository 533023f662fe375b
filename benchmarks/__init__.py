# SPDX-License-Identifier: Apache-2.0
"""Models, fillers and comparisons: what tcc is measured on, and the scripts that measure it."""
