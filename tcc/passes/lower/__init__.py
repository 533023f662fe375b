# SPDX-License-Identifier: Apache-2.0
"""Passes from one level to the next, one a file."""
