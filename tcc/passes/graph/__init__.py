# SPDX-License-Identifier: Apache-2.0
"""Passes on the graph IR, independent of hardware, one a file."""
