# SPDX-License-Identifier: Apache-2.0
"""Passes on the kernel IR, one a file."""
